"""One step made visible: the numbers are those of the step, a wrong backward shows, and the page works in a browser."""
import base64
import io
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from commands import STEPS, contents, finish, load, one_line, start

from tinygan import engines
from tinygan.data import Digits
from tinygan.data.minibatches import Minibatches
from tinygan.engines.threads import one_thread
from tinygan.errors import UserError
from tinygan.gradcheck import TOLERANCE
from tinygan.layers import BatchNorm2d, LeakyReLU
from tinygan.learn import page
from tinygan.learn.differences import check
from tinygan.learn.xray import balance, before, examine, xray
from tinygan.losses import LOSSES
from tinygan.recipes import RECIPES, make_gan
from tinygan.run.checkpoint import Run
from tinygan.run.settings import DEFAULTS

PASSES = 'real', 'fake', 'generator'
LEARNS = {'lsgan64': 2, 'wgan_gp': 5}             # a step in which G learns, where it is not the first
GANS = [name for name, recipe in RECIPES.items() if recipe.loss]


class Labelled(Digits):
    def batch_labels(self, step, size):
        return np.arange(size) * 3 % 10


def step_of(name, N=4, step=1, **settings):
    """(GAN, config, arguments of GAN.step) of a recipe with small minibatches."""
    recipe = RECIPES[name]._replace(batch_size=N, **settings)
    config = DEFAULTS | {'recipe': name, 'data': 'digits', 'run': None, 'batch_size': N} | settings
    return make_gan(recipe), config, Minibatches(Labelled(0), recipe)(step)


@pytest.fixture(scope='module')
def dcgan():
    """The GAN after its step, and what is shown of it."""
    gan, config, batch = step_of('dcgan')
    return gan, examine(gan, config, batch)


def all_checks(figures):
    """(sweep, layer, row) of everything that was checked by moving."""
    for name, sweep in figures['sweeps'].items():
        for i, layer in enumerate(sweep['layers']):
            yield from ((name, i, row) for row in layer.get('checks', ()))
        yield from ((name, 'loss', row) for row in sweep.get('loss', {}).get('checks', ()))


def same_weights(gan, other):
    for name, vector in other.vectors().items():
        np.testing.assert_array_equal(vector, gan.vectors()[name], err_msg=name)
    return True


def total(norms):
    return np.linalg.norm(list(norms))


# ---- the numbers are those of the step

@pytest.mark.parametrize('name,step', [(name, LEARNS.get(name, 1)) for name in GANS])
def test_every_recipe_s_step_is_a_plain_step_and_has_a_page_that_needs_nothing_else(name, step):
    watched, config, batch = step_of(name, 2, step)
    plain, figures = make_gan(RECIPES[name]), examine(watched, config, batch)
    with one_thread():
        metrics = plain.step(*batch)
    assert same_weights(watched, plain)
    assert figures['about']['metrics'] == pytest.approx({key: float(value) for key, value in metrics.items()}, rel=1e-3)
    assert not any('forward' in vars(leaf) or leaf.frozen for leaf in [*watched.G.leaves(), *watched.D.leaves()])
    assert max(row['error'] for *_, row in all_checks(figures)) < TOLERANCE

    html = page.render(figures).decode()
    assert len(html) < 3e6 / 2                    # with two images; with a real minibatch there are four
    assert not re.search(r'https?:|@import|url\(|<link(?! rel="icon" href="data:,")|import\(|fetch\(|XMLHttp', html)
    assert all(source.startswith(('data:', '#', '${')) for source in re.findall(r'(?:src|href)="([^"]*)"', html))
    scripts = re.findall(r'<script.*?</script>', html, re.DOTALL)
    assert len(scripts) == 2 and json.loads(scripts[0].partition('>')[2][:-9])['about']['recipe'] == name


def test_of_a_larger_minibatch_four_images_are_shown_wherever_one_looks():
    for sweep in examine(*step_of('dcgan', 5))['sweeps'].values():
        shown = [layer[way]['sheets'] for layer in sweep['layers'] for way in ('forward', 'backward')]
        shown += [sweep['loss'][name] for name in ('scores', 'outputs')] if 'loss' in sweep else []
        assert {len(images) for images in [sweep['input'].get('pictures') or sweep['input']['sheets'], *shown]} == {4}


def test_gradients_and_updates_are_those_that_the_optimisers_saw(dcgan):
    gan, figures = dcgan
    fresh, _, (x, *_) = step_of('dcgan')
    for name, sweep in ('D', 'fake'), ('G', 'G'):
        network, begun = getattr(gan, name), getattr(fresh, name)
        shown = [norms for layer in figures['sweeps'][sweep]['layers'] for norms in layer['gradients'].values()]
        assert total(norms['sum'] for norms in shown) == pytest.approx(total(network.gradients), rel=1e-3)
        moved = [of for layer in figures['networks'][name] for of in layer['parameters'].values()]
        assert total(of['norm'] for of in moved) == pytest.approx(total(begun.parameters), rel=1e-3)
        assert total(of['update'] for of in moved) == pytest.approx(total(network.parameters - begun.parameters), rel=1e-3)
    for layer in figures['sweeps']['generator']['layers']:
        assert layer['gradients'] == {}           # D is frozen


def test_each_pass_of_d_has_gradients_of_its_own(dcgan):
    gan, _, (x, z, *_) = step_of('dcgan')
    fake, shown = gan.G(z), dcgan[1]['sweeps']
    for name, images in ('real', x), ('fake', fake):
        gan.D.zero_grad()
        dx = gan.D.backward(getattr(gan.loss, name)(gan.D(images))[1])
        leaves = gan.D.leaves()
        assert total(dx.ravel()) == pytest.approx(shown[name]['layers'][0]['backward']['norm'], rel=1e-3)
        for leaf, layer in zip(leaves, shown[name]['layers']):
            for parameter, norms in layer['gradients'].items():
                assert norms['own'] == pytest.approx(total(getattr(leaf, 'd' + parameter).ravel()), rel=1e-3)


def test_g_is_judged_by_the_updated_d(dcgan):
    gan, figures = dcgan
    fresh, _, (_, z, *_) = step_of('dcgan')
    fake = fresh.G(z)
    for name, D in ('fake', fresh.D), ('generator', gan.D):
        score = D(fake)
        assert figures['sweeps'][name]['loss']['scores'] == pytest.approx(score[:, 0].tolist(), rel=1e-3)
    assert 'backward' in figures['sweeps']['G']['layers'][0]


def test_what_each_layer_makes_is_described_over_the_whole_minibatch(dcgan):
    fresh, _, (x, *_) = step_of('dcgan')
    for leaf, layer in zip(fresh.D.leaves(), dcgan[1]['sweeps']['real']['layers']):
        x, shown = leaf(x), layer['forward']
        assert shown['shape'] == list(x.shape[1:]) and sum(shown['histogram']['counts']) == x.size
        assert (shown['mean'], shown['std']) == pytest.approx((x.mean(), x.std()), rel=1e-3, abs=1e-6)
        assert ('dead' in shown) == (getattr(leaf, 'slope', None) == 0)
        if 'dead' in shown:
            assert shown['dead'] == pytest.approx(np.mean((x > 0).sum(axis=0) == 0), rel=1e-3) and 0 < shown['dead'] < 0.5


@pytest.mark.parametrize('order,step,D_rests_at,there', [
    ('both', 1, 0, 'real fake generator'), ('both', 1, 100, 'real fake generator'),
    ('alternate', 1, None, 'real fake'), ('alternate', 2, None, 'generator')])
def test_passes_are_told_apart_also_where_d_and_g_take_turns_and_where_d_rests(order, step, D_rests_at, there):
    gan, config, batch = step_of('dcgan', 2, step)
    gan.order, gan.D_rests_at = order, D_rests_at
    figures = examine(gan, config, batch)
    assert set(figures['sweeps']) == {'G', *there.split()}
    assert all(('backward' in layer) == ('generator' in there) for layer in figures['sweeps']['G']['layers'])
    moves = {name: any(of['update'] for layer in layers for of in layer['parameters'].values())
             for name, layers in figures['networks'].items()}
    assert moves == {'D': 'real' in there and D_rests_at != 100, 'G': 'generator' in there}


@pytest.mark.parametrize('loss,D,loss_D,loss_G', [
    ('bce', 0.5, 2 * np.log(2), np.log(2)), ('bce_smooth', 0.45, 1.376, 0.7985), ('minimax', 0.5, 2 * np.log(2), -np.log(2)),
    ('lsgan', 0.5, 0.25, 0.125), ('lsgan_chi2', 0, 1, 0), ('mse', 0.5, 0.5, 0.25), ('hinge', 0, 2, 0)])
def test_the_balance_is_where_d_gives_real_and_fake_the_same_score(loss, D, loss_D, loss_G):
    assert balance(LOSSES[loss]()) == pytest.approx({'D': D, 'loss_D': loss_D, 'loss_G': loss_G}, abs=1e-3)


def test_where_any_score_is_as_good_the_balance_names_none():
    assert balance(LOSSES['wgan']()) == {'D': None, 'loss_D': 0, 'loss_G': None}


@pytest.mark.parametrize('name', ['wgan_gp', 'fast'])
def test_a_penalty_is_no_sweep_and_what_it_adds_is_shown(name):
    gan, config, batch = step_of(name, 2)
    penalty = gan.penalty = gan.penalty._replace(weight=100)
    figures = examine(gan, config, batch)
    assert set(figures['sweeps']) == {'G', 'real', 'fake'} | ({'generator'} if name == 'fast' else set())
    assert figures['about']['penalty'] == RECIPES[name].penalty and figures['about']['metrics']['penalty'] > 0 and gan.penalty is penalty
    norms = [norms for layer in figures['sweeps']['fake']['layers'] for norms in layer['gradients'].values()]
    assert total(of['all'] for of in norms) == pytest.approx(total(gan.D.gradients), rel=1e-3)
    assert total(of['sum'] for of in norms) != pytest.approx(total(gan.D.gradients), rel=1e-3)
    plain, *_ = step_of(name, 2)
    plain.penalty = None
    plain.step(*batch)
    assert total(of['sum'] for of in norms) == pytest.approx(total(plain.D.gradients), rel=1e-3)
    assert max(row['error'] for *_, row in all_checks(figures)) < TOLERANCE


def test_labels_stand_behind_z_and_in_planes_behind_the_image():
    gan, config, batch = step_of('conditional', 2)
    figures = examine(gan, config, batch)
    assert figures['about']['classes'] == 10 and figures['sweeps']['G']['input']['shape'] == [42]
    planes = figures['sweeps']['real']['layers'][0]
    assert planes['forward']['shape'] == [28, 28, 11] and planes['backward']['shape'] == [28, 28, 1]
    assert figures['sources']['LabelPlanes']['equation'].startswith('y = x and behind it a plane for each class')
    assert [of['name'] for of in figures['sources']['LabelPlanes']['helpers']] == [
        'labels.py: LabelPlanes.no_labels', 'labels.py: LabelPlanes.joined']


# ---- by hand and by moving

def test_every_link_of_the_chain_is_checked_and_a_right_one_agrees(dcgan):
    gan, figures = dcgan
    rows = list(all_checks(figures))
    parameters = [len(leaf.parameter_names) for leaf in gan.D.leaves()], [len(leaf.parameter_names) for leaf in gan.G.leaves()]
    assert len(rows) == sum(1 + n for n in parameters[1]) + 3 * sum(1 + n for n in parameters[0]) + 3
    assert max(row['error'] for *_, row in rows) < TOLERANCE
    for sweep, i, row in rows:                    # it is the largest that the step had, of all that are at no kink
        if row['name'] == 'dx':
            shown, kinked = figures['sweeps'][sweep]['layers'][i], 'dead' in figures['sweeps'][sweep]['layers'][i]['forward']
            largest = max(-shown['backward']['low'], shown['backward']['high'])
            assert abs(row['hand']) == pytest.approx(largest, rel=2e-3) or kinked and 0 < abs(row['hand']) < largest


def test_a_wrong_backward_shows_where_it_is(monkeypatch):
    def without_xhat(self, dy):
        xhat, rstd = self.cache
        self.dgamma += (dy * xhat).sum((0, 1, 2))
        self.dbeta += 2 * dy.sum((0, 1, 2))
        return self.gamma * rstd * (dy - dy.mean((0, 1, 2)))
    monkeypatch.setattr(BatchNorm2d, 'backward', without_xhat)
    gan, config, batch = step_of('dcgan', 2)
    wrong = {(sweep, i, row['name']) for sweep, i, row in all_checks(examine(gan, config, batch)) if row['error'] > 10 * TOLERANCE}
    norms = [('G', i) for i, leaf in enumerate(gan.G.leaves()) if isinstance(leaf, BatchNorm2d)]
    norms += [(sweep, i) for sweep in PASSES for i, leaf in enumerate(gan.D.leaves()) if isinstance(leaf, BatchNorm2d)]
    assert wrong == {(*norm, gradient) for norm in norms for gradient in ('dx', 'dbeta')}


def test_a_wrong_first_link_shows(monkeypatch):
    gan, config, batch = step_of('dcgan', 2)
    gan.loss = gan.loss._replace(generator=lambda score: (LOSSES['bce']().generator(score)[0], -score / score.size))
    wrong = [(sweep, i) for sweep, i, row in all_checks(examine(gan, config, batch)) if row['error'] > 1e-3]
    assert wrong == [('generator', 'loss')]


def test_an_entry_at_a_kink_is_left_alone():
    x, dy = np.array([[1e-6, 2.0, -3.0]]), np.array([[9.0, 1.0, 0.5]])
    row, = check(LeakyReLU(0.2), x, dy)
    assert row['place'] == [0, 1] and row['error'] < TOLERANCE and row['hand'] == 1


# ---- the page

def test_listings_are_the_source_and_the_layer_s_own_words(dcgan):
    sources = dcgan[1]['sources']
    assert sources['ReLU']['forward']['name'] == 'layers.py: LeakyReLU.forward'
    assert sources['ReLU']['equation'] == 'y = max(x, 0); the gradient at 0 is 0.'
    assert sources['Conv2d']['backward']['source'].startswith('def backward(self, dy):\n    # forward was y = cols @ w + b')
    helpers = {helper['name'] for helper in sources['Conv2d']['helpers']}
    assert {f'conv.py: {name}' for name in ('forward', 'weight_grad', 'input_grad', 'im2col', 'col2im', 'output_size')} <= helpers
    loss = dcgan[1]['sweeps']['real']['loss']
    assert loss['line'] == 'bce_with_logits(score, target=1)' and loss['source']['source'].startswith('def bce_with_logits')
    assert [helper['name'] for helper in loss['helpers']] == ['losses.py: softplus', 'losses.py: sigmoid']


def test_text_of_a_run_s_name_cannot_end_the_script(dcgan):
    figures = dcgan[1] | {'about': dcgan[1]['about'] | {'run': '</script><b>'}}
    assert b'</script><b>' not in page.render(figures)
    with pytest.raises(ValueError):               # no browser reads NaN
        page.render({'loss': float('nan')})


def test_a_picture_has_the_palette_s_zero_in_the_middle_and_its_ends_at_the_scale():
    uri = page.sheet(np.array([-2.0, -1, 0, 1, 5]), 1)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2])))
    assert image.size == (5, 1) and np.asarray(image).tolist() == [[0, 0, 7, 14, 14]]
    blue, _, zero, orange, _ = np.asarray(image.convert('RGBA'))[0]
    assert tuple(blue) == (*page.BLUE, 255) and tuple(orange) == (*page.ORANGE, 255) and zero[3] < 32


def test_of_a_long_vector_the_first_entries_are_shown():
    uri = page.sheet(np.ones(page.ENTRIES + 16), 1)
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2]))).size == (16, page.ENTRIES // 16)


# ---- which step

def options(out, run=None, step=None, seed=None):
    return SimpleNamespace(out=str(out), run=run and str(run), step=step, seed=seed)


def test_a_run_is_met_before_its_next_step_and_stays_as_it_is(trained, tmp_path, capsys):
    run, before_it = trained[0], contents(trained[0])
    gan, config, batch = before(run)
    recipe = RECIPES['dcgan']._replace(batch_size=8)
    expected = make_gan(recipe, 5)
    expected.load_state(load(run)[2])
    assert batch[2] == STEPS + 1 and same_weights(gan, expected)
    np.testing.assert_array_equal(batch[0], Minibatches(Digits(5), recipe, 5)(STEPS + 1)[0])
    xray(options(tmp_path / 'page.html', run))
    assert capsys.readouterr().out == f'{tmp_path / "page.html"}: step {STEPS + 1} of {run}: open it in a browser\n'
    assert contents(run) == before_it


@pytest.mark.parametrize('step', [1, 3, STEPS + 3])
def test_any_other_step_is_trained_up_to_in_memory(trained, step):
    run, before_it = trained[0], contents(trained[0])
    gan, _, batch = before(run, step)
    recipe = RECIPES['dcgan']._replace(batch_size=8)
    expected, done = make_gan(recipe, 5), 0
    if step > STEPS:
        expected.load_state(load(run)[2])
        done = STEPS
    engine = engines.start(expected, Minibatches(Digits(5), recipe, 5), done + 1)
    for number in range(done + 1, step):
        engine.step(number)
    engine.close()
    assert batch[2] == step and same_weights(gan, expected) and contents(run) == before_it


def test_without_a_run_networks_are_fresh_and_have_the_seed_s_weights():
    gan, config, batch = before(seed=3)
    assert batch[2] == 1 and batch[0].shape == (128, 28, 28, 1) and config['data'] == 'digits'
    assert same_weights(gan, make_gan(RECIPES['dcgan'], 3))


def test_what_cannot_be_looked_at_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match='absent holds no checkpoint'):
        before(tmp_path / 'absent')
    gan = make_gan(RECIPES['dcgan'])
    config = {'recipe': 'dcgan', 'data': str(tmp_path / 'gone'), 'steps_per_epoch': 1}
    Run.start(tmp_path / 'run', config, gan.state(), {})
    with pytest.raises(UserError, match='run: its images are no longer at .*gone, and a step needs them'):
        before(tmp_path / 'run')
    Run.start(tmp_path / 'mnist', config | {'data': 'mnist'}, gan.state(), {})
    monkeypatch.setenv('TINYGAN_DATA', str(tmp_path))
    with pytest.raises(UserError, match='mnist: its images, MNIST, are not here: name their folder with TINYGAN_DATA'):
        before(tmp_path / 'mnist')
    Run.start(tmp_path / 'other', config | {'data': 'digits', 'images': 'abc'}, gan.state(), {})
    with pytest.raises(UserError, match='are not those that it was trained on'):
        before(tmp_path / 'other')
    for name, state in ('empty', {}), ('broken', gan.state() | {'D.parameters': np.zeros(3)}):
        Run.start(tmp_path / name, config, state, {})
        with pytest.raises(UserError, match=f'{name}: its networks are not those that its recipe makes'):
            before(tmp_path / name, 1)
    Run.start(tmp_path / 'vae', config | {'recipe': 'vae', 'loss': None}, make_gan(RECIPES['vae']).state(), {})
    with pytest.raises(UserError, match='vae: xray looks into a step of a GAN, and recipe vae is none'):
        before(tmp_path / 'vae')
    gan.G.parameters[:] = np.nan
    with pytest.raises(UserError, match='not finite'):
        examine(gan, config, Minibatches(Digits(0), RECIPES['dcgan']._replace(batch_size=2))(1))
    assert not any('forward' in vars(leaf) for leaf in gan.G.leaves())


def test_only_a_page_of_tinygan_s_is_replaced(tmp_path):
    out = tmp_path / 'xray.html'
    page.check_ours(out)
    out.write_bytes(page.TEMPLATE.read_bytes())
    page.check_ours(out)
    out.write_text('<p>my own')
    for path in out, tmp_path:
        with pytest.raises(UserError, match='is there already, and tinygan did not make it: choose another name'):
            xray(options(path))
    assert out.read_text() == '<p>my own'


def test_the_command_s_mistakes_get_one_line(tmp_path):
    for arguments, said in (('--step 0', 'must be at least 1'), ('--out page.png', 'does not end in .html'),
                            ('absent', 'holds no checkpoint')):
        _, err = finish(start(tmp_path, 'tinygan', 'xray', *arguments.split()), check=2)
        assert one_line(err, said, program='tinygan')
    assert not contents(tmp_path)


# ---- in a browser

BROWSER = shutil.which('chromium') or shutil.which('google-chrome')
LISTENER = '<script>window.faults = []; window.onerror = (...what) => faults.push(what.join(" "));</script>'


def seen(path, hash='', script=''):
    """The DOM after loading the page, with a listener for errors before all scripts and a script after them."""
    html = path.read_text('utf-8').replace('<main>', LISTENER + '<main>')
    copy = path.with_name('copy.html')
    copy.write_text(html.replace('</body>', f'<script>{script};document.title = JSON.stringify(faults)</script></body>'), 'utf-8')
    command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={path.parent / "profile"}',
               '--allow-file-access-from-files', '--dump-dom', copy.as_uri() + hash]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    dom = re.sub(r'<script.*?</script>', '', done.stdout, flags=re.DOTALL)
    assert re.search(r'<title>(.*?)</title>', dom)[1] == '[]', dom[:500]
    return dom


def press(*keys):
    return ''.join(f'document.dispatchEvent(new KeyboardEvent("keydown", {{key: "{key}", bubbles: true}}));' for key in keys)


@pytest.fixture(scope='module')
def rendered(dcgan, tmp_path_factory):
    if not BROWSER:
        pytest.skip('there is no chromium or google-chrome here')
    path = tmp_path_factory.mktemp('page') / 'xray.html'
    path.write_bytes(page.render(dcgan[1]))
    return path


def test_an_address_leads_to_a_layer(rendered):
    dom = seen(rendered, '#pass=2&layer=14&image=3')
    assert '<small>Pass 2 · Discriminator, layer 4 of 7</small>' in dom and '<h2 id="title">BatchNorm2d</h2>' in dom
    assert 'id="box14" data-place="14" aria-current="true"' in dom
    assert 'data-image="3" aria-checked="true"' in dom and 'data-pass="2" aria-selected="true"' in dom
    assert 'dgamma[' in dom and 'WRONG' not in dom and 'xhat = (x - mu) * rstd' in dom


def test_keys_turn_layers_images_and_passes(rendered):
    keys = [press('ArrowRight', 'ArrowUp'), press('3', *['ArrowLeft'] * 8, 'ArrowDown', 'ArrowDown', 'ArrowUp'), press('1')]
    script = 'const been = [location.hash];' + ''.join(f'{some} been.push(location.hash);' for some in keys)
    dom = seen(rendered, '#pass=9&layer=999&image=abc', script + 'document.body.dataset.been = been.join(" ").replaceAll("&", " ")')
    nonsense, right, three, one = re.search('data-been="#(.*?)"', dom)[1].split(' #')
    assert nonsense == right == 'pass=1 layer=18 image=1'         # the nearest that there is
    assert three == 'pass=3 layer=10 image=2' and one == 'pass=1 layer=10 image=2'
    assert '<h2 id="title">real x</h2>' in dom


def test_every_view_can_be_drawn_and_is_no_wider_than_a_phone(rendered):
    script = '''const bad = []; let views = 0;
    for (const pass of [3, 2, 1]) for (let layer = lowest(pass); layer < CHAIN.length; layer++) {
      go({pass, layer, image: 4}); views++;
      if (/undefined|NaN|Infinity|object /.test(document.querySelector('main').textContent)) bad.push(location.hash);
      if (self !== top && document.documentElement.scrollWidth > 390) bad.push(location.hash + ' is wide');
    }
    Object.assign(document.body.dataset, {views, bad: bad.join()});
    if (self === top) {
      const phone = document.createElement('iframe');
      Object.assign(phone, {width: 390, height: 800, src: location.href});
      phone.onload = () => document.body.dataset.phone = JSON.stringify(phone.contentDocument.body.dataset);
      document.body.append(phone);
    }'''
    dom = seen(rendered, '', script)
    assert 'data-views="47"' in dom and 'data-bad=""' in dom
    assert 'data-phone="{&quot;views&quot;:&quot;47&quot;,&quot;bad&quot;:&quot;&quot;}"' in dom


@pytest.mark.skipif(not BROWSER, reason='there is no chromium or google-chrome here')
def test_a_step_with_a_penalty_in_which_g_rests_can_be_drawn(tmp_path):
    path = tmp_path / 'xray.html'
    path.write_bytes(page.render(examine(*step_of('wgan_gp', 2))))
    script = '''const bad = [], said = []; let views = 0;
    for (const {key} of PASSES) if (X.sweeps[key]) {
      const pass = PASSES.findIndex(of => of.key == key) + 1;
      for (let layer = lowest(pass); layer < CHAIN.length; layer++) {
        go({pass, layer, image: 1}); views++;
        said.push(document.querySelector('main').innerHTML);
        if (/undefined|NaN|Infinity|object |null/.test(document.querySelector('main').textContent)) bad.push(location.hash);
      }
    }
    Object.assign(document.body.dataset, {views, bad: bad.join(), said: said.join(' ')});'''
    dom = seen(path, '', script)
    assert 'data-views="30"' in dom and 'data-bad=""' in dom
    said = dom.partition('data-said=')[2]
    assert all(words in said for words in ('penalty on the slope of D', 'and that of the penalty wgan_gp', 'in one of 5 steps'))
