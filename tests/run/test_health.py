"""What a run says of itself: silence on every healthy run that was recorded, the right word on every failing one."""
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import train_mnist
from commands import SMALL

from tinygan import losses
from tinygan.data.digits import Digits
from tinygan.data.minibatches import Minibatches
from tinygan.errors import UserError
from tinygan.recipes import RECIPES, make_gan
from tinygan.run import health
from tinygan.run.checkpoint import Diverged
from tinygan.run.health import Health
from tinygan.run.watch import watched

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / 'benchmarks'))
from health import EVERY, FAILING, LOOK, METRICS, RUNS, SEEN  # noqa: E402

BALANCED = [{'loss_D': 1.39, 'loss_G': 0.69, 'D_x': 0.5, 'D_G_z1': 0.5}]
D_LEARNS, G_LEARNS = ('loss_D', 'D_x', 'D_G_z1'), ('loss_G', 'D_G_z2')           # when updates alternate


@pytest.fixture(scope='module')
def recorded():
    with np.load(ROOT / 'benchmarks' / 'results' / 'health.npz') as file:
        return dict(file)


class Replayed(Health):
    """Looks at a run that was recorded."""

    def __init__(self, run, recorded):
        recipe, _, _, _, changes = run[:5]
        recipe = RECIPES[recipe]._replace(**changes)
        gan = SimpleNamespace(loss=losses.LOSSES[recipe.loss](), critic_steps=recipe.critic_steps,
                              optim_G=SimpleNamespace(lr=recipe.lr),
                              optim_D=SimpleNamespace(lr=recipe.lr_d or recipe.lr))
        super().__init__(gan, None, dict)
        self.checkups = recorded

    def measure(self, step):
        return dict(zip(SEEN, self.checkups[max(0, step // LOOK - 1)]))


def replay(run, name, recorded):
    """All that is said while a recorded run goes by: {kind: the line}."""
    looking, said = Replayed(run, recorded[f'{name}/seen']), {}
    alternate = RECIPES[run[0]].order == 'alternate'
    for i, means in enumerate(recorded[f'{name}/metrics']):
        looking.next_look = 0
        row = dict(zip(METRICS, means))
        turns = [{name: row[name] for name in names} for names in ((D_LEARNS, G_LEARNS) if alternate else (METRICS,))]
        rows = turns * (EVERY // len(turns))
        for line in looking.look((i + 1) * EVERY, rows):
            said[re.match(r'step \d+: ([^:]*):', line)[1]] = line
    return said


@pytest.mark.parametrize('name', RUNS)
def test_a_healthy_run_is_left_in_peace(recorded, name):
    assert replay(RUNS[name], name, recorded) == {}
    assert len(recorded[f'{name}/metrics']) * EVERY > health.WINDOW              # long enough to be judged


def test_all_recipes_of_gans_were_recorded_with_several_seeds():
    gans = {name for name, recipe in RECIPES.items() if recipe.loss}
    assert {recipe for recipe, *_ in RUNS.values()} == gans == set(RECIPES) - {'vae'}
    assert all(f'{recipe}, seed {seed}' in RUNS for recipe in gans for seed in range(3))


@pytest.mark.parametrize('name', FAILING)
def test_a_failing_run_is_told_what_is_wrong(recorded, name):
    *run, kinds = FAILING[name]
    said = replay(run, name, recorded)
    assert set(said) == set(kinds)
    for line in said.values():
        assert re.search(r'\d', line.partition(': ')[2]) and ' try a ' in line and 'README, "How to read a run"' in line


def test_every_kind_of_failure_was_recorded():
    kinds = {kind for *_, kinds in FAILING.values() for kind in kinds}
    assert kinds == {'D has won', 'D cannot follow', 'the losses explode', 'G has collapsed', 'units are dead', 'G does not move',
                     'D does not move'}
    assert '## How to read a run\n' in (ROOT / 'README.md').read_text()


def game(recipe='dcgan', **changes):
    recipe = RECIPES[recipe]._replace(batch_size=8, **changes)
    gan = make_gan(recipe)
    return gan, Minibatches(Digits(0), recipe)


@pytest.mark.parametrize('loss, balance', [('bce', 2 * np.log(2)), ('lsgan', 0.25), ('lsgan_chi2', 1), ('mse', 0.5), ('hinge', 2)])
def test_the_balance_is_the_least_loss_of_a_d_that_knows_nothing(loss, balance):
    np.testing.assert_allclose(health.stakes(losses.LOSSES[loss]())[1:], (balance, 0), atol=1e-3)


def test_a_loss_without_a_floor_is_known():
    assert health.stakes(losses.LOSSES['wgan']()) == (0, 0, -np.inf)
    assert all(np.isfinite(health.stakes(make())).all() for name, make in losses.LOSSES.items() if name != 'wgan')


@pytest.mark.parametrize('name', ['fast', 'wgan_gp'])
def test_a_critic_whose_scores_are_far_apart_has_not_won(monkeypatch, name):
    gan, batches = game(name)
    looking = Health(gan, batches, gan.state)
    monkeypatch.setattr(looking, 'measure', lambda step: dict(zip(SEEN, (1, 0, 1e-3, 1e-3))))
    won = [{'loss_D': -90 if name == 'wgan_gp' else 1e-4, 'D_x': 60, 'D_G_z1': -30, 'penalty': 0.1}]
    rows = (won * gan.critic_steps + [won[0] | {'loss_G': 30}]) * health.WINDOW
    assert [line.split(':')[1] for line in looking.look(9999, rows)] == ([] if name == 'wgan_gp' else [' D has won'])


def test_where_g_learns_once_in_a_window_two_of_its_losses_are_enough(monkeypatch):
    gan, batches = game('fast', critic_steps=health.WINDOW)
    looking = Health(gan, batches, gan.state)
    monkeypatch.setattr(looking, 'measure', lambda step: dict(zip(SEEN, (1, 0, 1e-3, 1e-3))))
    balanced = {'loss_D': 1.4, 'D_x': 0, 'D_G_z1': 0}
    rows = [balanced] * (health.WINDOW - 1) + [balanced | {'loss_G': 1e9}]
    assert looking.look(health.WINDOW, rows) == []
    line, = looking.look(2 * health.WINDOW, rows)
    assert 'the losses explode' in line


def test_of_a_vae_there_is_no_game_but_its_g_and_its_motion_are_looked_at():
    gan, batches = game('vae')
    looking = Health(gan, batches, gan.state)
    rows = [{'reconstruction': 900., 'divergence': 1e-3}]
    gan.step(*batches(1))
    assert looking.look(1, rows) == [] and not looking.seen          # not yet
    looking.next_look, gan.G.parameters[:] = 0, 0
    line, *_ = looking.look(health.WINDOW + 1, rows * health.WINDOW)
    assert 'G has collapsed' in line and '--lr than 0.002' in line and 'instance-noise' not in line
    looking.next_look, looking.said = 0, set()
    gan, batches = game('vae', lr=1e-12)
    looking.gan = gan
    gan.step(*batches(1))
    measure = looking.measure
    looking.measure = lambda step: measure(step) | {'spread': 1, 'dead': 0}
    said = looking.look(2 * health.WINDOW, rows)
    assert [line.split(': ')[1] for line in said] == ['G does not move', 'the encoder does not move']


def test_looking_changes_nothing():
    gan, batches = game()
    gan.step(*batches(1))
    before = gan.state()
    seen = Health(gan, batches, gan.state).measure(1)
    assert all(np.array_equal(before[name], value) for name, value in gan.state().items())
    assert all(leaf.training for leaf in gan.G.leaves())
    assert 0 < seen['spread'] < 0.5 and seen['dead'] == 0 and seen['moved_G'] > 1e-4


def test_of_a_few_images_nothing_is_said():
    recipe = RECIPES['dcgan']._replace(batch_size=4)
    gan = make_gan(recipe)
    gan.G.parameters[:] = 0
    looking = Health(gan, Minibatches(Digits(0), recipe), gan.state)
    gan.step(*looking.batches(1))
    assert looking.look(200, BALANCED * health.WINDOW) == [] and np.isnan(looking.seen['spread'])


def test_how_far_parameters_move_is_how_far_adam_moves_them():
    gan, batches = game(lr=1e-3)
    for number in 1, 2, 3:
        before = gan.G.parameters.copy()
        gan.step(*batches(number))
    change = np.linalg.norm(gan.G.parameters - before) / np.linalg.norm(gan.G.parameters)
    assert health.relative_update(gan.optim_G) == pytest.approx(change, rel=1e-3)


def test_a_collapsed_g_and_dead_units_are_seen():
    gan, batches = game()
    norm = next(leaf for leaf in gan.G.leaves() if 'gamma' in leaf.parameter_names)
    norm.beta[:100] = -100                        # of 128 channels
    assert Health(gan, batches, gan.state).measure(1)['dead'] == 100 / 128
    gan.G.parameters[:] = 0                       # every z makes the same image
    assert Health(gan, batches, gan.state).measure(1)['spread'] == 0


def test_at_most_one_part_in_two_hundred_of_the_time_is_spent_on_looking(monkeypatch):
    gan, batches = game()
    now, looked = [0.], []
    monkeypatch.setattr(health.time, 'monotonic', lambda: now[0])
    looking = Health(gan, batches, gan.state)

    def measure(step):
        now[0] += 0.02
        looked.append(step)
        return dict.fromkeys(SEEN, 1)
    monkeypatch.setattr(looking, 'measure', measure)
    monkeypatch.setattr(looking, 'findings', dict)
    looking.look(0, BALANCED * health.WINDOW)
    now[0], looking.next_look = 100., 0
    looked.clear()
    for step in range(1, 1001):
        now[0] += 0.1
        looking.look(step, [])
    assert looked[0] == 1 and 20 < len(looked) and len(looked) * 0.02 < (now[0] - 100) / 190


def test_a_slow_first_look_is_not_taken_for_how_g_is_later(monkeypatch):
    gan, batches = game()                         # a G that has not learnt anything: its images are nearly all alike
    now = [0.]
    monkeypatch.setattr(health.time, 'monotonic', lambda: now[0])
    looking = Health(gan, batches, gan.state)
    gan.step(*batches(1))
    for step in range(1, 3 * health.WINDOW):
        now[0] += 1
        looking.next_look = np.inf if step > 1 else 0
        assert looking.look(step, BALANCED) == []
    looking.next_look = 0
    line, = looking.look(step, BALANCED)
    assert 'G has collapsed: its images differ from each other only 0.0' in line


def test_a_run_says_once_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(health, 'WINDOW', 20)
    assert train_mnist.main([*SMALL, '--plain', '--max-steps', '60', '--lr', '1e-5', '--lr-d', '4e-3',
                             '--out', str(tmp_path / 'run')]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if 'D has won' in line]
    assert len(lines) == 1 and re.match(r'step \d+: D has won: for 20 updates, loss D 0\.\d\d \(at the balance 1\.39\)', lines[0])
    assert '--lr-d than 0.004' in lines[0]


@pytest.mark.parametrize('engine', [['--plain'], []])
def test_what_is_not_a_number_is_traced_to_the_layer_where_it_began(tmp_path, engine):
    with pytest.raises(UserError, match=r'diverged: step 1 .* It began in step 1: layer 2 of D, Conv2d\(64, 128.*forward$'):
        train_mnist.main([*SMALL, *engine, '--max-steps', '30', '--lr', '1e20', '--loss', 'lsgan', '--out', str(tmp_path / 'run')])


def test_a_weight_that_is_not_a_number_ends_the_run_at_the_next_look(tmp_path, monkeypatch):
    monkeypatch.setattr(health, 'SHARE', 0)
    with pytest.raises(UserError, match='has a weight that is not a number.* It began in step'):
        train_mnist.main([*SMALL, '--plain', '--max-steps', '60', '--lr', '1e9', '--out', str(tmp_path / 'run')])


def test_who_does_not_wait_for_the_layer_still_learns_what_happened(monkeypatch):
    gan, batches = game()
    looking = Health(gan, batches, gan.state)
    monkeypatch.setattr(looking, 'origin', lambda step: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(UserError, match='it diverged. Where it began was not looked for'), looking.explaining():
        raise Diverged('it diverged', 3)


def test_a_minibatch_that_is_not_one_of_numbers_is_blamed_for_it():
    gan, batches = game()
    looking = Health(gan, batches, gan.state)

    def spoiled(number):
        x, *others = batches(number)
        return (x * np.nan if number == 2 else x, *others)
    looking.batches = spoiled
    assert looking.origin(3) == ('It began in step 2: layer 0 of D, Conv2d(1, 64, 4, stride=2, padding=1), in its forward, from '
                                 'what it was given')
    looking.batches = batches
    assert 'stay finite' in looking.origin(2)
    looking.gan.optim_D.v[0] = np.inf             # which the layers do not see
    looking.sound = 0, gan.state()
    assert looking.origin(1) == 'It began in step 1: D.v, after the step'
    gan, batches = game()
    gan.D.leaves()[3].gamma[0] = np.inf
    assert Health(gan, batches, gan.state).origin(1).endswith('layer 3 of D, BatchNorm2d(128), in its forward, from its parameters')


def test_watching_sees_every_layer_both_ways_and_leaves_no_trace():
    gan, batches = game()
    seen = []
    with watched(gan.D, lambda way, i, given, made: seen.append((way, i, given.shape, made.shape))):
        score = gan.D(batches(1)[0])
        gan.D.backward(score)
    n = len(gan.D.leaves())
    assert [entry[:2] for entry in seen] == [('forward', i) for i in range(n)] + [('backward', i) for i in reversed(range(n))]
    assert all(given == other for (_, _, given, _), (_, _, _, other) in zip(seen[:n], reversed(seen[n:])))
    assert not any({'forward', 'backward'} & set(vars(leaf)) for leaf in gan.D.leaves())


def test_what_is_not_a_number_first_in_a_penalty_began_there():
    gan, batches = game('wgan_gp')
    gan.penalty = gan.penalty._replace(weight=np.inf)
    assert Health(gan, batches, gan.state).origin(1) == 'It began in step 1: the penalty on the slope of D'


def test_where_g_learns_in_every_third_step_a_window_has_a_third_of_its_updates():
    gan, batches = game('fast', critic_steps=3, lr=1e-12, lr_d=1e-12)
    looking = Health(gan, batches, gan.state)
    d_learns = {'loss_D': 1e-4, 'D_x': 1, 'D_G_z1': 0}
    rows = [d_learns | ({'loss_G': 9} if step % 3 == 0 else {}) for step in range(1, health.WINDOW + 1)]
    line, *_ = looking.look(health.WINDOW, rows)
    assert 'D has won' in line
