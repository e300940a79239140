"""Export of a decomposed model to a verified bundle: plan, write, compare with torch, attribute the loss of accuracy."""
