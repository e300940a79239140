"""Lower precisions of a graph: what can be asked for, fp16, calibration, sensitivity; `runtimes` holds each runtime's quantiser."""
