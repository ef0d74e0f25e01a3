"""Comparisons in one run: our code and the other side take turns.

=============  =================================================================
``training``   images per second of training beside a plain loop
``plain``      the plain training loop
``commits``    images per second of training beside another commit
``packed``     packed networks beside other libraries
``others``     the other libraries of ``packed``
``agreement``  whole trainings here and in the plain loop: the same accuracy?
=============  =================================================================
"""
