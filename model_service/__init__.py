"""Holds the towers on the device and answers PredictRating and TopK, behind gRPC."""
