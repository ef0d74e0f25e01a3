"""The operands that a layer may have: their names, the letters that stand for them in a spec, and their bits."""

OPERANDS = {"b": "binary", "t": "ternary", "f": "float", "h": "fixed16"} | {str(k): f"fixed{k}" for k in range(2, 10)}


def operand_bits(operand: str) -> int:
    """Bits that one value of an operand takes in memory: binary 1, ternary 2, fixedK K, float 32."""
    return {"binary": 1, "ternary": 2, "float": 32}.get(operand) or int(operand.removeprefix("fixed"))
