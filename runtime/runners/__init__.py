"""Runtimes behind one protocol. `runner(name)` finds one; third parties add theirs as entry points of `vitdeploy.runners`."""
