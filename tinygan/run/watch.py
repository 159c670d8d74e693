"""Looking at what passes through a network, without a word about it in the layers."""
import contextlib


WAYS = 'forward', 'backward'


@contextlib.contextmanager
def watched(network, note):
    """Within the block, note(way, i, given, made) is called after each forward and backward of the network's i-th layer (of its
    `leaves`): way 'forward' with x and y, way 'backward' with dy and dx."""
    leaves = network.leaves()
    for i, leaf in enumerate(leaves):
        for way in WAYS:
            setattr(leaf, way, watching(getattr(leaf, way), note, way, i))
    try:
        yield
    finally:
        for leaf in leaves:
            del leaf.forward, leaf.backward       # what was set above: those of the class are back


def watching(method, note, way, i):
    def call(given):
        made = method(given)
        note(way, i, given, made)
        return made
    return call


def unwatched(penalty):
    """The same penalty on a D that is watched; what it sends through D itself is not."""
    def call(D, x):
        put_away = [(leaf, {way: vars(leaf).pop(way) for way in WAYS}) for leaf in D.leaves()]
        try:
            return penalty(D, x)
        finally:
            for leaf, ways in put_away:
                vars(leaf).update(ways)
    return call
