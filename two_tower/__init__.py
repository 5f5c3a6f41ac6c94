"""The model: what trainer and model_service must agree on. Knows tensors and files; no process, RPC or data frame."""
