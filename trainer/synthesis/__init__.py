"""Makes data sets with the shape of MovieLens and a structure that is known: `synthesize` and `write_synthetic`."""

from trainer.synthesis.dataset_synthesis import SynthesisPlan as SynthesisPlan
from trainer.synthesis.dataset_synthesis import synthesize as synthesize
from trainer.synthesis.folder_writer import write_synthetic as write_synthetic
