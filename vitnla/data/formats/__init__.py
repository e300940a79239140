"""One module per data set format; `vitnla.data.load` lists them by SPEC."""
