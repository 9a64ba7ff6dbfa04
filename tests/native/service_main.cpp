// The service of a generated host with a clock and a device of the test's own: what sockets and time hide.
// Run by tests/unit/test_service.py, one case a process; the model is that of the test.
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net.hpp"
#include "service.hpp"

namespace {

namespace chat = dlavm::chat;
namespace wire = dlavm::wire;
using host::ConversationId;
using host::Milliseconds;
using host::Turn;

void check(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::exit(1);
}

struct Message {
    std::uint16_t number;
    std::string payload;

    template <class Type>
    Type as() const {
        check(number == Type::kNumber,
              "message " + std::to_string(Type::kNumber) + ", got " + std::to_string(number));
        return Type::decode(payload);
    }
};

// A service, the time, and what the device does: token n follows n tokens in the cache.
struct Stage {
    explicit Stage(host::Limits limits = {}) : service(limits, "", 0) {}

    ConversationId greet() {
        const ConversationId id = service.open(now);
        chat::Hello hello;
        hello.magic = chat::kMagic;
        hello.version = chat::kVersion;
        send(id, hello);
        next<chat::Welcome>(id);
        return id;
    }

    template <class Type>
    void send(ConversationId id, const Type& message) {
        service.receive(id, message.frame(), now);
    }

    // Everything that waits is sent.
    std::vector<Message> messages(ConversationId id) {
        std::string bytes;
        while (!service.output(id).empty()) {
            bytes += service.output(id);
            service.sent(id, service.output(id).size(), now);
        }
        std::vector<Message> found;
        for (std::size_t at = 0; at < bytes.size();) {
            const wire::Header header = wire::parse_header(&bytes[at]);
            found.push_back({header.number, bytes.substr(at + wire::kHeaderBytes, header.length)});
            at += wire::kHeaderBytes + header.length;
        }
        return found;
    }

    // The only message that waits.
    template <class Type>
    Type next(ConversationId id) {
        const std::vector<Message> found = messages(id);
        check(found.size() == 1, "one message, got " + std::to_string(found.size()));
        return found[0].as<Type>();
    }

    chat::ErrorMessage refusal(ConversationId id, chat::Error code, bool fatal) {
        const auto error = next<chat::ErrorMessage>(id);
        check(error.code == code && (error.fatal == 1) == fatal, "another error: " + error.text);
        check(service.closing(id) == fatal, "closing after a fatal error only");
        return error;
    }

    chat::Statistics stats(ConversationId id) {
        send(id, chat::Stats());
        return next<chat::Statistics>(id);
    }

    Turn take() {
        std::optional<Turn> turn = service.take();
        check(turn.has_value(), "a turn, got none");
        return std::move(*turn);
    }

    void finish(Turn turn, const std::string& error = "") {
        turn.error = error;
        turn.microseconds = 10;
        if (turn.kind == Turn::Kind::kStep && error.empty())
            turn.sequence.cached += static_cast<std::uint32_t>(turn.tokens.size());
        turn.token = turn.sequence.cached + 100;
        service.finish(std::move(turn), now);
    }

    void run(int turns) {
        for (int i = 0; i < turns; ++i) finish(take());
    }

    host::Service service;
    Milliseconds now = 1000;
};

chat::Generate generate(std::uint32_t max_tokens = 60, host::Tokens ids = {5, 6, 7}) {
    chat::Generate message;
    message.max_tokens = max_tokens;
    message.ignore_end = 1;
    message.top_p = 1;
    message.ids = std::move(ids);
    return message;
}

host::Limits caches(std::uint32_t count) {
    host::Limits limits;
    limits.conversations = count;
    return limits;
}

chat::Load load(std::uint32_t kv_len) {
    chat::Load message;
    message.model_id = model::kModelId;
    message.kv_len = kv_len;
    message.bytes = host::Model::state_bytes(kv_len);
    return message;
}

chat::Data data(const std::string& bytes) {
    chat::Data message;
    message.bytes = bytes;
    return message;
}

void device_error() {
    Stage stage(caches(2));
    const ConversationId one = stage.greet(), two = stage.greet();
    stage.send(one, generate());
    stage.send(two, generate(3));
    stage.run(2);
    check(stage.messages(one).size() == 1 && stage.messages(two).size() == 1, "a token each");
    stage.finish(stage.take(), "the device stopped");
    check(stage.refusal(one, chat::Error::kDevice, false).text == "the device stopped", "the device's words");
    check(stage.stats(one).kv_len == 0 && stage.stats(one).conversations == 1,
          "the cache is lost and given back");
    stage.run(2);
    check(stage.messages(two).back().as<chat::Done>().tokens == 3, "the other one goes on");
    stage.send(one, generate(1));
    stage.run(1);
    check(stage.messages(one).back().as<chat::Done>().kv_len == 3, "and so does this one, from the start");
}

void device_error_in_a_load() {
    Stage stage(caches(1));
    const ConversationId id = stage.greet();
    const chat::Load begin = load(64);
    const std::string piece(begin.bytes / 4, '\0');
    stage.send(id, begin);
    stage.send(id, data(piece));
    stage.finish(stage.take(), "the device stopped");
    check(stage.messages(id).empty() && stage.stats(id).conversations == 0,
          "the rest is waited for, without a cache");
    stage.send(id, data(piece));
    stage.send(id, data(piece));
    check(!stage.service.take(), "nothing is written any more");
    stage.send(id, data(piece));
    stage.refusal(id, chat::Error::kDevice, false);
    stage.send(id, begin);
    for (int i = 0; i < 4; ++i) {
        stage.send(id, data(piece));
        while (std::optional<Turn> turn = stage.service.take()) stage.finish(std::move(*turn));
    }
    check(stage.next<chat::Ok>(id).kv_len == 64, "another load");
}

void a_state_that_is_refused() {
    Stage stage(caches(1));
    const ConversationId id = stage.greet();
    stage.send(id, load(1));
    stage.send(id, data(std::string(2, '\0')));
    Turn turn = stage.take();
    turn.refused = true;
    stage.finish(std::move(turn), "not finite");
    stage.refusal(id, chat::Error::kInvalid, true);
    check(stage.stats(stage.greet()).conversations == 0, "the cache is given back");
}

// A place is free when the device has let go of it, not when the client has.
void leaving_during_a_turn() {
    const std::map<std::string, std::function<void(Stage&, ConversationId)>> ends = {
        {"vanish", [](Stage& stage, ConversationId id) { stage.service.close(id, "gone"); }},
        {"goodbye", [](Stage& stage, ConversationId id) { stage.send(id, chat::Goodbye()); }},
        {"nonsense",
         [](Stage& stage, ConversationId id) { stage.service.receive(id, "12345678", stage.now); }},
    };
    for (const auto& [name, leave] : ends) {
        Stage stage(caches(1));
        const ConversationId one = stage.greet(), two = stage.greet();
        stage.send(one, generate());
        Turn turn = stage.take();
        leave(stage, one);
        stage.send(two, generate());
        stage.refusal(two, chat::Error::kBusy, false);
        check(!stage.service.take(), name + ": no turn while the place is in use");
        stage.finish(std::move(turn));
        stage.send(two, generate());
        check(stage.take().sequence.place == 0, name + ": the place comes back");
    }
}

void shutdown_during_a_turn() {
    Stage stage(caches(2));
    const ConversationId one = stage.greet(), two = stage.greet(), three = stage.greet();
    stage.send(one, generate());
    stage.send(two, generate());
    Turn turn = stage.take();
    stage.service.shutdown(stage.now);
    check(stage.messages(one).empty(), "the turn in flight is waited for");
    std::vector<Message> found = stage.messages(two);
    check(found.size() == 2 && found[0].as<chat::Done>().tokens == 0, "the other answer ends at once");
    found[1].as<chat::Farewell>();
    stage.next<chat::Farewell>(three);
    check(!stage.service.take() && !stage.service.empty(), "no more turns");
    stage.finish(std::move(turn));
    found = stage.messages(one);
    check(found.size() == 3 && found[0].as<chat::Token>().id == 103, "its token is given");
    check(found[1].as<chat::Done>().reason == chat::StopReason::kShutdown, "why it ended");
    const auto abandoned = [&](ConversationId id) { return stage.service.abandoned(id); };
    const std::vector<ConversationId> all = {one, two, three};
    stage.service.tick(stage.now + 1999);
    check(std::none_of(all.begin(), all.end(), abandoned), "two seconds to read it");
    stage.service.tick(stage.now + 2000);
    check(std::all_of(all.begin(), all.end(), abandoned), "and no more");
    for (const ConversationId id : all) stage.service.close(id, "");
    check(stage.service.empty(), "everyone is gone");
}

void turns_go_round() {
    Stage stage(caches(3));
    std::vector<ConversationId> ids = {stage.greet(), stage.greet(), stage.greet()};
    stage.send(ids[2], generate());
    stage.send(ids[0], generate());
    stage.send(ids[1], generate(60, host::Tokens(40, 5)));  // three steps
    for (int round = 0; round < 5; ++round) {
        for (const ConversationId id : ids) {
            Turn turn = stage.take();
            check(turn.conversation == id, "each in its turn");
            check(turn.tokens.size() <= model::kChunk, "a step at most");
            stage.finish(std::move(turn));
        }
    }
    std::vector<Message> found = stage.messages(ids[1]);
    for (const std::uint32_t done : {16u, 32u, 40u}) {
        check(found.front().as<chat::Progress>().done == done, "progress of a long prompt");
        found.erase(found.begin());
    }
    check(found.size() == 3, "and its tokens");
}

void an_unread_answer_waits() {
    Stage stage;
    const ConversationId id = stage.greet(), other = stage.greet();
    stage.send(id, generate());
    std::string pings;
    for (int i = 0; i < 20000; ++i) pings += chat::Ping().frame();
    stage.service.receive(id, pings, stage.now);
    check(!stage.service.reads(id), "nothing more is read");
    check(stage.service.output(id).size() < (64 << 10) + 100, "what waits is bounded");
    check(!stage.service.take(), "and nothing computed");
    stage.send(other, generate());
    check(stage.take().conversation == other, "for this one");
    check(stage.messages(id).size() == 20000, "every ping is answered, when there is room");
    check(stage.take().conversation == id, "then the answer goes on");
}

void slow_readers() {
    Stage stage;
    const ConversationId id = stage.greet();
    const Milliseconds begin = stage.now;
    stage.send(id, chat::Ping());
    stage.send(id, chat::Ping());
    for (int i = 0; i < 15; ++i) {  // a byte each two seconds: the first message takes 32 of them
        check(!stage.service.closing(id), "there is time");
        stage.service.sent(id, 1, stage.now += 2000);
        stage.service.tick(stage.now);
    }
    check(stage.now == begin + 30000 && stage.service.abandoned(id), "no longer than the limit");
    check(stage.service.close(id, "") ==
              "output: reader: expected within 30000 ms, got none (0 requests, 0 tokens)",
          "the reason");
}

void deadlines() {
    host::Limits limits;
    limits.message = 10'000;
    limits.idle = 60'000;
    limits.answer = 5'000;
    Stage stage(limits);
    const ConversationId silent = stage.service.open(stage.now), id = stage.greet();
    check(stage.service.tick(stage.now) == stage.now + 10'000, "the greeting is the first");
    stage.service.close(silent, "");
    check(stage.service.tick(stage.now) == stage.now + 60'000, "then a request");
    stage.service.receive(id, chat::Ping().frame().substr(0, 3), stage.now);
    check(stage.service.tick(stage.now) == stage.now + 10'000, "the end of a message");
    stage.service.receive(id, chat::Ping().frame().substr(3), stage.now + 9'999);
    stage.next<chat::Pong>(id);
    check(stage.service.tick(stage.now + 9'999) == stage.now + 60'000, "which came");
    stage.now += 20'000;
    stage.send(id, generate());
    check(stage.service.tick(stage.now) == stage.now + 5'000, "the end of an answer");
    Turn turn = stage.take();
    check(!stage.service.tick(stage.now += 6'000), "that waits for its turn");
    stage.finish(std::move(turn));
    check(stage.messages(id).back().as<chat::Done>().reason == chat::StopReason::kTimeout, "and then ends");
    check(stage.service.tick(stage.now) == stage.now + 60'000, "idle again");
    stage.service.tick(stage.now += 60'000);
    stage.refusal(id, chat::Error::kTimeout, true);
}

// The hint is when the first idle cache would be given back.
void when_to_ask_again() {
    host::Limits limits = caches(1);
    limits.idle = 60'000;
    Stage stage(limits);
    const ConversationId one = stage.greet(), two = stage.greet();
    stage.send(one, generate(1));
    const auto retry = [&] {
        stage.send(two, generate());
        return stage.refusal(two, chat::Error::kBusy, false).retry_ms;
    };
    check(retry() == 10'000, "nothing is known of an answer");
    stage.run(1);
    stage.messages(one);
    stage.now += 53'000;
    check(retry() == 7'000, "the rest of its time");
    stage.now += 6'900;
    check(retry() == 500, "not too soon");
}

// A state of several pieces: no more than one waits for the client, and pings are answered between them.
void pieces() {
    Stage stage;
    const ConversationId id = stage.greet();
    const chat::Load begin = load(model::kContext);
    check(begin.bytes > 3 * host::kPieceBytes, "a state that is long enough");
    stage.send(id, begin);
    std::uint64_t sent = 0;
    while (stage.service.reads(id) && sent < begin.bytes) {
        const std::size_t size = std::min<std::uint64_t>(99'999, begin.bytes - sent);
        stage.send(id, data(std::string(size, '\1')));
        sent += size;
    }
    check(sent < 2 * host::kPieceBytes, "what is held is bounded");
    stage.send(id, chat::Ping());
    check(stage.messages(id).empty(), "behind a full buffer");
    std::uint64_t written = 0;
    while (written < begin.bytes) {
        Turn turn = stage.take();
        check(turn.offset == written && turn.bytes.size() <= host::kPieceBytes && turn.bytes.size() % 2 == 0,
              "pieces");
        written += turn.bytes.size();
        stage.finish(std::move(turn));
        while (stage.service.reads(id) && sent < begin.bytes) {
            const std::size_t size = std::min<std::uint64_t>(99'999, begin.bytes - sent);
            stage.send(id, data(std::string(size, '\1')));
            sent += size;
        }
    }
    check(stage.messages(id).back().as<chat::Ok>().kv_len == model::kContext, "all of it");
    stage.send(id, chat::Save());
    check(stage.next<chat::State>(id).bytes == begin.bytes, "saved");
    for (std::uint64_t got = 0; got < begin.bytes;) {
        stage.run(1);
        check(!stage.service.take(), "a piece at a time");
        stage.send(id, chat::Ping());  // waits with its answer until the client reads
        const std::vector<Message> found = stage.messages(id);
        got += found.front().as<chat::Data>().bytes.size();
        check(found.size() == 2, "data and pong");
    }
    check(!stage.service.take(), "all of it");
}

// As between the device thread and the loop: whatever is done under the mutex before a wake is seen. The
// second wake of each pair comes sooner or later after the first, until it meets the loop at every place in
// drain().
void no_wake_is_lost() {
    constexpr int kPairs = 20'000, kPauses = 20'000, kPatience = 20'000;  // milliseconds
    host::Wake wake;
    std::mutex mutex;
    int done = 0;
    std::atomic<int> seen{0};
    const auto work = [&] {
        const std::lock_guard<std::mutex> lock(mutex);
        ++done;
        wake.wake();
    };
    std::thread worker([&] {
        for (int pair = 1; pair <= kPairs; ++pair) {
            work();
            for (volatile int pause = pair * 37 % kPauses; pause > 0; pause = pause - 1) {
            }
            work();
            while (seen != 2 * pair) std::this_thread::yield();
        }
    });
    while (seen < 2 * kPairs) {
        pollfd polled = {wake.fd(), POLLIN, 0};
        check(poll(&polled, 1, kPatience) == 1, "a wake after " + std::to_string(seen));
        check(!wake.drain(), "no stop");
        const std::lock_guard<std::mutex> lock(mutex);
        seen = done;
    }
    worker.join();
    wake.stop();
    check(wake.drain(), "stop");
}

const std::map<std::string, void (*)()> kCases = {
    {"device_error", device_error},
    {"device_error_in_a_load", device_error_in_a_load},
    {"a_state_that_is_refused", a_state_that_is_refused},
    {"leaving_during_a_turn", leaving_during_a_turn},
    {"shutdown_during_a_turn", shutdown_during_a_turn},
    {"turns_go_round", turns_go_round},
    {"an_unread_answer_waits", an_unread_answer_waits},
    {"slow_readers", slow_readers},
    {"deadlines", deadlines},
    {"when_to_ask_again", when_to_ask_again},
    {"pieces", pieces},
    {"no_wake_is_lost", no_wake_is_lost},
};

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && kCases.count(argv[1]) == 1) {
        kCases.at(argv[1])();
        return 0;
    }
    for (const auto& [name, run] : kCases) std::printf("%s\n", name.c_str());
    return argc == 1 ? 0 : 2;
}
