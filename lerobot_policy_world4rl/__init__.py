"""The LeRobot plugin: importing it registers World4RL's parts under LeRobot's names.

The policy is `world4rl_gaussian`, the environment `world4rl_metaworld`, the reward model `world4rl_success_classifier`.

LeRobot's commands import every installed distribution whose name begins with `lerobot_policy_`, so installing this
one is all that `lerobot-eval --policy.path=... --env.type=world4rl_metaworld` needs.
"""

from lerobot_policy_world4rl.configuration_success import World4RLSuccessConfig
from lerobot_policy_world4rl.environment import World4RLMetaWorld
from world4rl.policies.configuration_world4rl import World4RLGaussianConfig

__all__ = ["World4RLGaussianConfig", "World4RLMetaWorld", "World4RLSuccessConfig"]
