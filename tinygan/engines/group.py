"""What processes must be able to do to take a step together, whatever connects them."""
import numpy as np


class Group:
    """The processes among which each minibatch is divided. This one is alone. Lanes are the cores of one machine, which share its
    memory; Ranks are what mpirun has started, on one machine or many, and send each other messages. They have, besides,

        hold(gan)              the GAN that they will train
        start(engine)          before the first step: all go on from the same state, and all but the first serve
        tell(number), hear()   the first says which step is next, or None at the end; the others hear it
        collect(network)       what adds up to all gradients of this one's share of the parameters: an array of each process
        spread(network)        all have what each has made of its share
        gather()               the first has what each has made of its share of all that GAN.vectors names
        close()                the others need not serve any longer

    All add up in the order of the processes, so that the same number gives the same bits. (But Ranks of several machines first add
    up those of each.)
    """
    count, index = 1, 0             # how many there are, and which of them this is; 0 is the first, which leads
    keeps_statistics = True         # BatchNorm's running ones: one process for each memory does
    started = False

    def mean(self, *arrays):
        """The mean of each array over the processes, the same in all of them: it holds for the whole minibatch."""
        return arrays

    def share(self, size):
        """Of a vector of that size, what this process works on."""
        return slice(size * self.index // self.count, size * (self.index + 1) // self.count)

    def __deepcopy__(self, memo):                 # of a layer, whose copy stays in the same group
        return self


def pack(arrays):
    """One vector of several arrays."""
    return np.concatenate([np.ravel(array) for array in arrays])


def unpack(vector, arrays):
    """What pack made one vector of, in their shapes."""
    ends = np.cumsum([np.size(array) for array in arrays])
    return [part.reshape(np.shape(array)) for part, array in zip(np.split(vector, ends[:-1]), arrays)]
