"""Drawing from autoregressive models with every activation computed once."""
