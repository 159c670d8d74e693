"""Every measured figure of the READMEs is the one in benchmarks/results: in the sentences of figures.txt and in tables, row by row.
What was measured once, by no script that is kept, says at which commit. A figure is a number with a decimal point or a unit."""
import json
import re
import sys
from functools import cache

import numpy as np
import pytest
from commands import ROOT

from tinygan.judge.frozen import SHIPPED, shipped
from tinygan.run.generator import TRAINED

sys.path.insert(0, str(ROOT / 'benchmarks'))
import mutants  # noqa: E402
import provenance  # noqa: E402
import speedrun  # noqa: E402

RESULTS = {path.stem: json.loads(path.read_text('utf-8')) for path in provenance.RESULTS.glob('*.json')}
JUDGES = [shipped(name) for name in SHIPPED]
FIRST, SECOND = map(str, JUDGES)
UNIT = r'(?:±|%|(?:ms|s|[kMG]B|MiB|GB/s|GFLOP|TFLOP/s|minutes|seconds)\b)'
FIGURE = re.compile(rf'(?<![\w.])\d[\d,]*(?:\.\d+(?![\w.])|(?:\.\d+)? ?{UNIT})')
NO_FIGURES = [                      # code, versions, settings, definitions and arithmetic
    r'`[^`]*`', r'\b(?:Python|CUDA|CuPy|NumPy|section) \d[\d.]*', 'H100 80GB', r'by 1 or 0\.2', r'log 2 = \d\.\d+', r'above 1\.39',
    r'SD = 0\.7\b', 'can exceed 100%', r'LeakyReLU 0\.1', r'a loss of 0\.1\b', r'beta1 0\.5', r'\(0, 0\.9\)', r'label.* and 0s',
    r'at an assumed .* for 100 Gbit/s', r'1\.3 times as short', r'beta2 should be 0\.9; .*0\.999',
    r'beta2 0\.9\b']
ONCE = (                            # paragraphs and tables that say, or those before or after them, at which commit
    '*Above, eight of the 1,000 pictures', '| N | 100 |', 'Judge 1 reads', 'With more cores PyTorch gains', 'The command first',
    'In channels_last, PyTorch')
TRIED = ('The search for `fast`', 'What made a step faster, and what did not', 'What made a step on a GPU faster, and what did not')
COMMIT = r'\b(?=[a-f]*\d)[0-9a-f]{7}\b'


def blocks(name):
    """(heading, text) of every paragraph and table: a line, without code."""
    heading = ''
    for text in re.split(r'\n\s*\n', re.sub(r'```.*?```|(?m:^    [^\n]*)', '', (ROOT / name).read_text('utf-8'), flags=re.DOTALL)):
        if text.startswith('#'):
            heading = text.lstrip('# \n')
        yield heading, ' '.join(text.split())


BLOCKS = [*blocks('README.md'), *blocks('benchmarks/README.md')]


# ---- what the results say

def of_speedrun():
    runs, found = RESULTS['speedrun']['runs'], {}
    for short, name in zip(('tinygan', 'ours', 'tutorial'), speedrun.MARKS):
        steps, seconds, mean, of_seeds = speedrun.means(runs[name], FIRST)
        found[short] = {'reached': speedrun.reached(runs[name], FIRST), 'second': speedrun.reached(runs[name], SECOND),
                        'seconds': seconds[-1], 'distance': mean[-1], 'seeds': sorted(of_seeds[:, -1], reverse=True),
                        'early': sorted(of_seeds[:, steps.index(1000)]) if 1000 in steps else None}
    _, seconds, mean, _ = speedrun.means(runs['tinygan'], FIRST)
    found['passed'] = seconds[mean <= found['tutorial']['distance']][0]
    return found | {recipe: {'fastest': min(ms.values()), 'float32': min(ms[name] for name in ('tutorial', 'tuned', 'compiled'))}
                    for recipe, ms in RESULTS['speedrun']['ms a step'].items()}


def of_speedrun_on_gpu():
    runs = RESULTS['speedrun_gpu']['runs']['tinygan']
    ready = sorted(row['ready_after'] for rows in runs.values() for row in rows if 'ready_after' in row)
    return {1: speedrun.reached(runs, FIRST), 2: speedrun.reached(runs, SECOND), 'ready': [ready[0], ready[-1]]}


def of_gpu():
    gpu = RESULTS['gpu']
    rates = [row['flop'] / row['us'] / 1e6 for row in gpu['account'] if row['flop'] > 1e9]
    return gpu | {'ratio': {name: gpu['ms_per_step'][name.split()[1]]['median'] / row['median']
                            for name, row in gpu['pytorch_ms'].items() if 'median' in row},
                  'ten epochs': min(row['median'] for row in gpu['pytorch_ms'].values()) * 10 * (60000 // 128) / 1e3,
                  'large': {'ms': sum(row['us'] for row in gpu['account'] if row['flop'] > 1e9) / 1e3, 'least': min(rates),
                            'most': max(rates)},
                  'TFLOP/s': gpu['totals']['matmul_flop_s'] / 1e12, 'TB/s': gpu['totals']['copy_bytes_s'] / 1e12}


def of_scale():
    scale, found = RESULTS['scale'], {'cores': {}, 'messages': {}}
    for row in scale['model']:
        if row['N'] == 128 and row['network'] == 'memory':
            found['cores'].setdefault(row['recipe'], {})[row['number']] = row['ms a step']
        elif row['N'] == 128 and row['number'] == 4:
            found['messages'].setdefault(row['recipe'], {})[row['network']] = 1 - row['compute ms'] / row['ms a step']
    return found | {'MB': {name: (row['bytes of means'] + row['bytes of vectors']) / 1e6 for name, row in scale['sent'].items()}}


def milliseconds():
    return {name: row['median'] * 1e3 for name, row in RESULTS['claims_speed'].items() if name != 'provenance'}


def known():
    """What figures.txt names."""
    cpu = {name.removeprefix('cpu_'): result | result['contenders'] for name, result in RESULTS.items() if name.startswith('cpu')}
    ms = milliseconds()
    with np.load(TRAINED) as trained, np.load(provenance.RESULTS / 'health.npz') as recorded:
        ship = json.loads(str(trained['about']))['Frechet distance of 10000 samples']
        losses = {name: recorded[f'{name}, seed 0/metrics'][-10:, 0].mean() for name in ('dcgan', 'fast')}
    return {**cpu, 'speed': of_speedrun(), 'speed_gpu': of_speedrun_on_gpu(), 'gpu': of_gpu(), 'scale': of_scale(),
            'quality': {name: {1: row[FIRST]['mean'], 2: row[SECOND]['mean'], 'seeds': row[FIRST]['each seed']}
                        for name, row in RESULTS['quality']['distances'].items()},
            'ms': ms | {'ratio': ms['R1 instead'] / ms['r1 without R1']},
            'time': RESULTS['claims_time'], 'early': RESULTS['claims_quality'], 'ship': {1: ship[FIRST], 2: ship[SECOND]},
            'right': [judge.about['accuracy'] for judge in JUDGES], 'loss_D': losses}


def sentences():
    text, names = (ROOT / 'tests' / 'figures.txt').read_text('utf-8'), known()
    return [' '.join(sentence.split()).format(**names) for sentence in text.split('\n\n')]          # names hold spaces too


# ---- the tables, row by row

def cells(*columns):
    return f'| {" | ".join(columns)} |'


def rows_of_cpu():
    for recipe, name, processor in (('dcgan', 'epyc', 'AMD EPYC'), ('dcgan64', 'epyc', 'AMD EPYC'),
                                    ('dcgan', 'xeon', 'Intel Xeon, *earlier*'), ('dcgan64', 'xeon', 'Intel Xeon, *earlier*')):
        row = RESULTS[f'cpu_{recipe}_{name}']['contenders']
        times = {who: '{ms a step:.0f} ({min:.0f} to {max:.0f})'.format(**each) for who, each in row.items()}
        torch = [f'{times[who]}; {row[who]["ours / it"]:.2f}' if who in row else '' for who in (
            'torch, tutorial', 'torch, tuned', 'torch, bfloat16')]
        peaks = [f'{row[who]["peak MiB"]}' if who in row else '' for who in (
            'tinygan', 'tinygan, plain', 'torch, tutorial', 'torch, tuned')]
        share = f'{row["tinygan"]["share of sgemm"]:.0%} ({row["torch, tuned"]["share of sgemm"]:.0%})'
        yield cells(f'`{recipe}`, {processor}', times['tinygan'], times.get('tinygan, plain', ''), *torch, share, ', '.join(peaks))


def rows_of_quality():
    titles = {'dcgan': "`dcgan`: the tutorial's settings", 'PyTorch': 'the same in PyTorch: weights, minibatches, noise',
              'fast': '`fast`'}
    for name, title in titles.items():
        found = [RESULTS['quality']['distances'].get(f'{name}, {epochs}') for epochs in ('1 epoch', '5 epochs', '10 epochs')]
        yield cells(title, *(f'{row[FIRST]["mean"]:.1f} ± {row[FIRST]["std"]:.1f} ({row[SECOND]["mean"]:.1f})' if row else ''
                             for row in found))


def rows_of_scale():
    measured = {(row['recipe'], row['N'], row['group'], row['processes']): row for row in RESULTS['scale']['measured']
                if row['machines'] == 1}
    modelled = {(row['recipe'], row['N'], row['network'], row['number']): row for row in RESULTS['scale']['model']}
    pays = {(row['recipe'], row['N'], row['network']): row['number'] for row in RESULTS['scale']['pays']}
    for key in dict.fromkeys(key[:2] for key in measured):
        one, lanes, ranks = (measured[*key, *group] for group in (('lanes', 1), ('lanes', 2), ('ranks', 2)))
        model = ['*{:.0f}, {:.0f}; {}*'.format(*(modelled[*key, network, k]['ms a step'] for k in (4, 16)), pays[*key, network])
                 if (*key, network) in pays else '' for network in ('10 Gbit/s', '100 Gbit/s')]
        yield cells(f'`{key[0]}`, {key[1]}', f'{one["ms a step"]:.0f}', f'{lanes["ms a step"]:.0f}',
                    f'{ranks["ms a step"]:.0f}; {ranks["ranks / lanes"]:.2f}', *model)


def ends_of_rows_of_claims():
    """Of two tables: the cells behind the first, which is prose."""
    norms = RESULTS['claims_gradients']
    for name, ms in milliseconds().items():
        row = RESULTS['claims_time'][name]
        decimals = int(row['mean'] < 100)
        yield cells('', f'{ms:.0f}', f'{row["steps"]}', f'{row["mean"]:.{decimals}f} ± {row["std"]:.{decimals}f}')[2:]
    for name, loss, other in (('LeakyReLU in D', 'minimax', 'LeakyReLU in D'),
                              ('LeakyReLU in D, G trained by minimax', 'minimax', 'LeakyReLU in D, G trained by minimax'),
                              ('LeakyReLU in D', 'non-saturating', 'ReLU in D')):
        ratios = (norms[name][when][loss] / norms[other][when]['non-saturating'] for when in norms['ReLU in D'])
        yield cells('', *(f'{ratio:.2f}' for ratio in ratios))[2:]


@cache
def held():
    """Whatever the READMEs must say."""
    texts = [*sentences(), *rows_of_cpu(), *rows_of_quality(), *rows_of_scale(), *ends_of_rows_of_claims(),
             *speedrun.table(RESULTS['speedrun']['runs']).splitlines()[2:],
             *filter(None, mutants.table(RESULTS['mutants']['mutants']).splitlines()[2:])]
    return [' '.join(text.split()) for text in texts]


# ---- and they do

def test_what_the_results_say_stands_in_a_readme():
    assert [text for text in held() if not any(text in block for _, block in BLOCKS)] == []


def test_no_other_figure_stands_in_a_readme_but_those_that_were_measured_once_and_say_at_which_commit():
    left = []
    for i, (heading, block) in enumerate(BLOCKS):
        for text in held():
            block = block.replace(text, '')
        figures = FIGURE.findall(re.sub('|'.join(NO_FIGURES), '', block))
        once = block.startswith(ONCE) and re.search(COMMIT, ' '.join(text for _, text in BLOCKS[i - 1:i + 2]))
        if figures and not once and heading not in TRIED:
            left.append((block[:60], figures))
    assert left == []


@pytest.mark.parametrize('heading', TRIED)
def test_what_was_tried_says_at_which_commit(heading):
    assert re.search(COMMIT, ' '.join(block for its, block in BLOCKS if its == heading))


@pytest.mark.parametrize('name', RESULTS)
def test_a_result_says_where_it_comes_from_and_a_readme_at_which_commit(name):
    for origin in (found := [*provenance.origins(RESULTS[name])]):
        assert {'python', 'numpy'} < origin['versions'].keys() and origin['device'] and origin['sources']
        assert re.fullmatch(r'\d{4}-\d\d-\d\d', origin['date']) and (ROOT / origin['command'].split()[1]).is_file()
        assert re.fullmatch(COMMIT, origin['commit']) and any(origin['commit'] in block for _, block in BLOCKS)
    named = re.findall('"commit": "(.*?)"', json.dumps(RESULTS[name]))        # by rows too, where not all runs are of one commit
    assert found and {*named} == {origin['commit'] for origin in found}
