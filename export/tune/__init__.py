"""`vitdeploy tune`: the fastest bundle within an accuracy budget, found by measurement."""
