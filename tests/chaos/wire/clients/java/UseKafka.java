import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The client of Kafka's own project: producers, a consumer of each group protocol, transactions. */
final class UseKafka {
    private static final String BOOTSTRAP = System.getenv("KAFKA_BOOTSTRAP_SERVERS");
    private static final String TOPIC = System.getenv("TOPIC");
    private static final String GROUP = System.getenv("GROUP");
    private static final String KEY = System.getenv("KEY");
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    public static void main(String[] arguments) throws Exception {
        try (var producer = producer(Map.of())) {
            produce(producer, "plain");
        }
        try (var producer = producer(Map.of("compression.type", "gzip"))) {
            produce(producer, "compressed");
        }
        consume(GROUP, "classic");
        var after = consume(GROUP + ".consumer", "consumer");
        transact(GROUP + ".transaction", after);
    }

    private static KafkaProducer<String, String> producer(Map<String, Object> more) {
        var settings = new HashMap<String, Object>(Map.of("bootstrap.servers", BOOTSTRAP));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }

    /** Has one message acknowledged. Its padding makes compression worth while. */
    private static void produce(KafkaProducer<String, String> producer, String note) throws Exception {
        var sent = producer.send(new ProducerRecord<>(TOPIC, KEY, note + ".".repeat(200 - note.length())));
        producer.flush();
        sent.get();
    }

    private static KafkaConsumer<String, String> consumer(String group, String protocol) {
        return new KafkaConsumer<>(
            Map.of(
                "bootstrap.servers", BOOTSTRAP,
                "group.id", group,
                "group.protocol", protocol,
                "auto.offset.reset", "earliest",
                "enable.auto.commit", false),
            new StringDeserializer(),
            new StringDeserializer());
    }

    private static Map<TopicPartition, OffsetAndMetadata> consume(String group, String protocol) {
        var after = new HashMap<TopicPartition, OffsetAndMetadata>();
        try (var consumer = consumer(group, protocol)) {
            consumer.subscribe(List.of(TOPIC));
            int seen = 0;
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (seen < 2) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("saw only " + seen + " messages");
                }
                for (ConsumerRecord<String, String> message : consumer.poll(Duration.ofMillis(200))) {
                    seen += KEY.equals(message.key()) ? 1 : 0;
                    var partition = new TopicPartition(message.topic(), message.partition());
                    after.put(partition, new OffsetAndMetadata(message.offset() + 1));
                }
            }
            consumer.commitSync();
        }
        return after;
    }

    private static void transact(String group, Map<TopicPartition, OffsetAndMetadata> after) throws Exception {
        try (var producer = producer(Map.of("transactional.id", group)); var outsider = consumer(group, "classic")) {
            producer.initTransactions();
            producer.beginTransaction();
            produce(producer, "committed");
            producer.sendOffsetsToTransaction(after, outsider.groupMetadata());
            producer.commitTransaction();
            producer.beginTransaction();
            produce(producer, "aborted");
            producer.abortTransaction();
        }
    }
}
