"""What a reader sees: notebooks, site, explorer, and the claims as text.

===============  ===============================================================
``notebooks``    runs the notebooks in a batch
``refresh``      runs notebooks in place, for authors
``site``         the report site
``explorer``     the data of the site's energy explorer
``widget``       the energy explorer as controls in notebook 03
``mathml``       formulas that need no network
``claims_text``  the judged claims as lines and as the table of the README
===============  ===============================================================
"""
