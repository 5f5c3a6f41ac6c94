"""The contract between processes. Generated from the .proto files beside it; make protos regenerates it."""
