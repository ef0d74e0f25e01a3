"""Runs of the studies: made here, in processes or on a cluster.

================  ==============================================================
``runner``        trains what has no result yet
``attempt``       one try at one run, and the result that it gives
``parallel``      several at once, in processes
``cluster``       the same on a Dask cluster
``lock``          one process per run
``provenance``    commit, instruction set
``verification``  packed networks against PyTorch, on all test images
================  ==============================================================
"""
