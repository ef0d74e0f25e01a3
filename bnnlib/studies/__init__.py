"""What is trained, and what came of it.

===============  ================================================================
``study``        the classes of a study: networks, protocols, seeds, changes per network
``definitions``  the studies of this project
``lookup``       studies, protocols and runs by name
``designs``      which choices of operands a study trains
``results``      result files: read and written
``predictions``  predicted classes within a result file
===============  ================================================================
"""

from bnnlib.studies.definitions import STUDIES
from bnnlib.studies.lookup import family, get_protocol, get_study, runs
from bnnlib.studies.study import Method, Protocol, Study

__all__ = ["STUDIES", "Method", "Protocol", "Study", "family", "get_protocol", "get_study", "runs"]
