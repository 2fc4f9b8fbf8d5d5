"""Generation loops over array -> array callables; the first come with the autoregressive models."""
