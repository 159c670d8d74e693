"""When a run draws samples, measures, saves and shows itself: by its steps and, however long they take, by the clock."""
import time

FEWEST = 100                                      # steps between two grids, which epochs of few images are far below
GRIDS = 100                                       # until the distance between two grids is doubled, and then again
MINUTE = 60                                       # in seconds


class Schedule:
    """What is due after a step. config may ask for more: sample_every, evaluate_every and checkpoint_every, in steps."""

    def __init__(self, config):
        self.config, self.per_epoch = config, config['steps_per_epoch']
        self.sampled = self.saved = self.drawn = time.monotonic()
        self.pause = MINUTE

    def asked(self, step, what):
        """Is something due that was asked for every so many steps?"""
        every = self.config.get(f'{what}_every')
        return bool(every) and step % every == 0

    def sample(self, step):
        """What to call the grid of samples due after this step, else None. One is due after each epoch, or after several short
        ones; in the beginning after steps 1, 2, 4 ...; after the last epoch; and where none was due for ten minutes."""
        distance = self.per_epoch * -(-FEWEST // self.per_epoch)
        early = step < distance and step & (step - 1) == 0
        last = step == self.per_epoch * self.config['epochs']
        while step > GRIDS * distance:
            distance *= 2
        late = time.monotonic() - self.sampled > 10 * MINUTE
        if step % distance == 0 or early or last or late or self.asked(step, 'sample'):
            self.sampled = time.monotonic()
            epoch, rest = divmod(step, self.per_epoch)
            return f'step_{step:06d}' if rest else f'epoch_{epoch:03d}'

    def checkpoint(self, step):
        """At the end of an epoch, if the last one is a minute old, and every ten minutes."""
        since = time.monotonic() - self.saved
        due = since > (10 if step % self.per_epoch else 1) * MINUTE or self.asked(step, 'checkpoint')
        if due:
            self.saved = time.monotonic()
        return due

    def draw(self, pictures):
        """Call pictures(), once a minute, and more rarely if it takes more than a twentieth of the time."""
        begin = time.monotonic()
        if begin - self.drawn > self.pause:
            pictures()
            self.drawn = time.monotonic()
            self.pause = max(MINUTE, 20 * (self.drawn - begin))
