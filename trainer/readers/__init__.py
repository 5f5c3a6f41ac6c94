"""Reads data sets of many forms into one: `read_dataset(source, options)`."""

from trainer.readers.dataset_reader import read_dataset as read_dataset
from trainer.readers.read_options import ReadOptions as ReadOptions
