"""What gpu.py shows on a screen: with its checks at most forty lines."""
LAYERS = 'ours, plain layers'


def ours(precision):
    return f'ours, {precision}'


def theirs(variant):
    return f'PyTorch, {variant}'


def show_times(result):
    measured = result['provenance']
    about = measured['versions']
    print(f"\n{measured['device']}, driver {about['driver']}, CUDA {about['cuda']}, CuPy {about['cupy']}, "
          f"PyTorch {about['torch']}\nrecipe {result['recipe']}, batch {result['batch_size']}, "
          f"data {result['data']}, {result['runs']} rounds, commit {measured['commit']}\n")
    print(f'{"ms a step":28} {"median":>9} {"min":>9} {"max":>9} {"/ ours, " + result["precision"]:>12}')
    times = {**{ours(precision): row for precision, row in result['ms_per_step'].items()},
             LAYERS: result['eager_layers_ms'],
             **{theirs(name): row for name, row in result['pytorch_ms'].items()}}
    columns = '{median:9.4f} {min:9.4f} {max:9.4f} {times_ours:12.2f}'
    for name, row in times.items():
        print(f'{name:28} ' + (row.get('failed') or columns.format(**row)), flush=True)


def show_waits(name, row):
    print(f'{name:28} ' + ', '.join(f'{key} {value}' for key, value in row.items()).replace("'", ''), flush=True)


def show_account(totals, rows, most=8):
    if 'failed' in totals:
        print('kernels one by one:', totals['failed'])
        return
    floor = totals['floor_ms']
    print(f"\n{totals['launches']} launches a step, {totals['flop'] / 1e9:.2f} GFLOP, "
          f"{totals['bytes'] / 1e6:.1f} MB: kernels {totals['kernels_ms']:.4f} ms one after the other, "
          f"a step {totals['step_ms']:.4f}")
    print(f"floor: {floor['flop']:.4f} ms at {totals['matmul_flop_s'] / 1e12:.0f} TFLOP/s, "
          f"{floor['bytes']:.4f} ms at {totals['copy_bytes_s'] / 1e9:.0f} GB/s, "
          f"launch by launch {floor['launch by launch']:.4f} ms\n")
    print(f"{'slowest kernels':19} {'us':>7} {'MFLOP':>8} {'of peak':>7} {'MB':>7} {'grid':>11}  where")
    for row in sorted(rows, key=lambda row: -row['us'])[:most]:
        print(f"{row['kernel']:19} {row['us']:7.2f} {row['flop'] / 1e6:8.1f} {row['share_of_matmul']:7.1%} "
              f"{(row['bytes'] or 0) / 1e6:7.2f} {'x'.join(map(str, row['grid'])):>11}  {row['where']}")
