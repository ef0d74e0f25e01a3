"""What follows from the results.

==================  ============================================================
``intervals``       differences of accuracies and their intervals, paired and unpaired
``claims_table``    the claims of the paper as a table
``claims``          a verdict on each of them
``tuning``          decisions of training, one at a time
``ladder``          methods from after the paper, one at a time
``recipe``          steps from the binary network within a budget
``recommendation``  the recipe on committed results
``choices``         all choices of binary and ternary, and a model of them
==================  ============================================================
"""
