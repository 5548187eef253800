"""What every room stands on: checks of arguments, numerics, the backend in use, pairs of labels."""
