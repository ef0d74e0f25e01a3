"""Timings: ours and the other side take turns in one run.

=============  =================================================================
``training``   images per second of training beside a plain loop
``plain``      that loop
``commits``    the same beside another commit
``packed``     packed networks beside other libraries
``others``     those libraries
``agreement``  whole trainings here and in the plain loop: the same accuracy?
=============  =================================================================
"""
