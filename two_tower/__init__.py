"""The model: what trainer and model_service must agree on. Knows tensors and files; knows no process, RPC or data frame."""
