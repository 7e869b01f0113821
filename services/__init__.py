"""The stages. Run each as `python -m services.<stage>`; no stage imports another."""

from larder.startup import end_on_signals

end_on_signals()
