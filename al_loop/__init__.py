"""The loop: import, rank, sync, retrain, evaluate, promote, and the worker that turns it."""
