"""What a multiply-accumulate costs in gates: dot-product units made, synthesised, simulated and priced with open tools.

operands    how operands are coded in bits, and random vectors of them
verilog     a dot-product unit as structural Verilog
liberty     cell libraries: functions, capacitances, power and delay tables
synthesis   yosys maps the unit to the cells of a library
netlist     the mapped unit as arrays
simulate    its values and toggles, with and without glitches
power       toggles times capacitances and tables: femtojoules
characterize  all of this for a table of operand pairs and vector lengths
"""
