"""What a multiply-accumulate costs in gates: dot-product units made, synthesised, simulated and priced with open tools.

================  ==============================================================
``coding``        how operands are coded in bits, and random vectors of them
``verilog``       a dot-product unit as structural Verilog
``liberty``       the Liberty format of cell libraries
``logic``         its Boolean expressions
``cells``         cell libraries: functions, capacitances, power and delay tables
``catalogue``     which cell libraries there are
``synthesis``     yosys maps the unit to the cells of a library
``netlist``       the mapped unit as arrays
``simulate``      its values and toggles, every sum checked
``glitch``        toggles when signals take time
``power``         toggles times capacitances and tables: femtojoules
``characterize``  all of this for a table of operand pairs and vector lengths
``law``           energy over the vector length
``options``       what the tables leave out, as factors
``activity``      what zeros and unchanging operands do
================  ==============================================================
"""
