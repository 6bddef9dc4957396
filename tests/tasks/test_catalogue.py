import subprocess
import sys

from altprop.tasks.catalogue import names, suggestion


def test_names_come_without_anything_heavy() -> None:
    code = (
        "import sys; from altprop.tasks import names; print(*names());"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'datasets', 'sklearn')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["digits", "mnist", "fashion-mnist", "cifar10"])


def test_suggests_the_near_name_only() -> None:
    assert suggestion("mnits") == " (did you mean 'mnist'?)"
    assert suggestion("Fashion_MNIST") == " (did you mean 'fashion-mnist'?)"
    assert suggestion("weather") == ""
    assert set(names()) >= {"digits", "mnist"}
