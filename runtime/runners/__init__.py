"""Runtimes behind one protocol. `runner(name)` returns one; third parties add theirs as entry points of `vitdeploy.runners`."""
