"""How layers and networks print themselves. There is no arithmetic here."""
import copy
import inspect

from .arrays import array_module


def as_made(layer):
    """The layer as it was made, Conv2d(1, 64, 4, stride=2, padding=1), from attributes named as the arguments."""
    shown = []
    for name, argument in inspect.signature(type(layer)).parameters.items():
        value = getattr(layer, name, argument.default)
        if value is argument.empty:           # it was not kept
            shown.append('...')
        elif argument.kind == argument.VAR_POSITIONAL:
            shown += map(repr, value)
        elif argument.default is argument.empty and argument.kind != argument.KEYWORD_ONLY:
            shown.append(repr(value))
        elif repr(value) != repr(argument.default):
            shown.append(f'{name}={value!r}')
    return f'{type(layer).__name__}({", ".join(shown)})'


def summary(network, *shape):
    """A line for each layer; see Sequential.summary."""
    lines = [('Sequential', f'{network.parameters.size:,}', shape)]
    x = array_module(network.parameters).zeros((1, *shape), network.parameters.dtype)
    for leaf in (copy.deepcopy(network).eval() if shape else network).leaves():      # a copy: looking must change nothing
        x = leaf(x) if shape else x
        size = sum(getattr(leaf, name).size for name in leaf.parameter_names)
        lines.append((f'  {leaf}', f'{size:,}' if size else '', x.shape[1:]))
    width = max(len(name) for name, _, _ in lines)
    return '\n'.join(f'{name:{width}}{size:>12}   {sizes(out) if shape else ""}'.rstrip()
                     for name, size, out in lines)


def sizes(shape):
    return '(' + ', '.join(map(str, ('N', *shape))) + ')'
