"""What a run can be asked for, and what of it may change when the run goes on. `options` have an attribute for each setting,
None where nothing was asked for."""
from ..errors import UserError
from ..recipes import RECIPES, Recipe, find_recipe

OF_RECIPE = ('batch_size', 'lr', 'lr_d', 'beta1', 'beta2', 'average', 'instance_noise', 'z_dim', 'loss', 'penalty',
             'penalty_weight', 'penalty_every', 'critic_steps', 'epochs')
RECIPE = 'fast'                                   # where none is named
DEFAULTS = {'seed': 0, 'background': 'white', 'flip': False, 'plain': False, 'precision': None, 'max_steps': None,
            'sample_every': None, 'checkpoint_every': None, 'evaluate_every': None, 'judge': None, 'processes': 1}
CHANGEABLE = 'epochs', 'max_steps', 'sample_every', 'checkpoint_every', 'evaluate_every', 'precision', 'plain'


def new_config(options):
    """The settings of a new run: those asked for, else the recipe's."""
    recipe = options.recipe or RECIPE
    if (options.penalty_weight or options.penalty_every) and not (options.penalty or RECIPES[recipe].penalty):
        raise UserError('--penalty-weight and --penalty-every are those of a penalty: name a --penalty too')
    config = {'recipe': recipe, 'data': options.data, **DEFAULTS, **of_recipe(RECIPES[recipe]),
              **asked(options, (*OF_RECIPE, *DEFAULTS))}
    if config['penalty'] != RECIPES[recipe].penalty:              # a recipe's own settings are for its own penalty
        config |= {name: Recipe._field_defaults[name] for name in ('penalty_weight', 'penalty_every')
                   if getattr(options, name) is None}
    return config if config['penalty_weight'] else config | {'penalty': None}


def old_config(config, options):
    """The settings of a run that goes on. UserError when it is asked for what only a new one can have."""
    config = DEFAULTS | of_recipe(find_recipe(config['recipe'])) | config         # an older run had fewer
    for name, value in asked(options, ('recipe', 'data', *OF_RECIPE, *DEFAULTS)).items():
        if value != config.get(name) and name not in CHANGEABLE:
            flag = '--' + name.replace('_', '-')
            begun = f'without {flag}' if config.get(name) is None or config[name] is False else f'with {flag} {config[name]}'
            raise UserError(f'{options.resume} was begun {begun} and cannot go on with {value}: leave out {flag}, or begin a new '
                            'run')
    return config | asked(options, CHANGEABLE)


def identity(images, config):
    """What a run knows its images by and, if its recipe is told classes, their labels and what they are called."""
    known = {'images': images.digest, 'steps_per_epoch': images.steps_per_epoch(config['batch_size'])}
    if find_recipe(config['recipe']).classes:
        known |= {'labels': images.labels_digest, 'class_names': list(images.class_names)}
    return known


def last_step(config):
    last = config['epochs'] * config['steps_per_epoch']
    return min(last, config['max_steps'] or last)


def of_recipe(recipe):
    return {name: getattr(recipe, name) for name in OF_RECIPE}


def asked(options, names):
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def recipe_of(config):
    """A run's recipe with the settings that it was asked for, and as many classes as its images have."""
    recipe = find_recipe(config['recipe'])
    classes = len(config['class_names']) if 'class_names' in config else recipe.classes
    return recipe._replace(classes=classes, **{name: config[name] for name in OF_RECIPE if name in config})
