"""Each broker as the tests of connectors see it: messages are put into it, and what came out is read."""

from tests.services.labs.aws import SnsLab, SqsLab
from tests.services.labs.kafka import KafkaLab
from tests.services.labs.mqtt import MqttLab
from tests.services.labs.nats import NatsLab
from tests.services.labs.pubsub import PubsubLab
from tests.services.labs.rabbitmq import RabbitLab
from tests.services.labs.redis import RedisLab

LABS = {lab.type: lab for lab in (KafkaLab, RabbitLab, NatsLab, RedisLab, MqttLab, SqsLab, SnsLab, PubsubLab)}
