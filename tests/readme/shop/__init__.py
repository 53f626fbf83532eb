"""The shop of README's examples: the pipeline's workers, told what to do in the words of the examples."""
