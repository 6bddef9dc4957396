"""Local losses: modules of blocks that learn by losses of their own, backpropagated inside a module at most."""
