"""From a canonical model to a bundle: trace, simplify, check, verify, compile."""
