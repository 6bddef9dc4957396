import subprocess
import sys

from altprop.tasks.catalogue import names, parts_of, suggestion


def test_names_come_without_anything_heavy() -> None:
    code = (
        "import sys; from altprop.tasks import names; print(*names());"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'datasets', 'sklearn')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expected = ["digits", "mnist", "fashion-mnist", "cifar10", "mnist-pairs", "mnist-triples"]
    assert (done.returncode, done.stdout.split()) == (0, expected)


def test_suggests_the_near_name_only() -> None:
    assert suggestion("mnits") == " (did you mean 'mnist'?)"
    assert suggestion("Fashion_MNIST") == " (did you mean 'fashion-mnist'?)"
    assert suggestion("weather") == ""
    assert set(names()) >= {"digits", "mnist"}


def test_tuples_of_known_names_only() -> None:
    assert parts_of("fashion-mnist-triples") == ("fashion-mnist", 3) and parts_of("digits-pairs") == ("digits", 2)
    assert parts_of("pairs") is parts_of("weather-pairs") is parts_of("fashion-mnist") is None
