// Fuzz target: the service of a generated host. Clients send what the input says, in any order with turns of
// the device, steps of the clock and ends; one client asks only what is right and must get its tokens.
#include <array>
#include <memory>
#include <utility>

#include "fuzz_client.hpp"

namespace {

using namespace fuzz;

constexpr std::size_t kClients = 6, kSlowClients = 2;  // the last ones read only when the input says so
constexpr char kSecret[] = "sesame";

// The generated driver on the playing device.
host::Model& device_model() {
    static host::Model model = host::Model::open("play:", FUZZ_ARTIFACT);
    return model;
}

host::Limits read_limits(Input& input) {
    constexpr Milliseconds kTimes[] = {0, 50, 1000, 10'000};
    host::Limits limits;
    limits.connections = 1 + input.u8() % 8;
    limits.conversations = 1 + input.u8() % 4;
    limits.max_tokens = 1 + input.u8() % 128;
    const std::uint8_t times = input.u8();
    limits.message = kTimes[times & 3];
    limits.stall = kTimes[times >> 2 & 3];
    limits.idle = kTimes[times >> 4 & 3];
    limits.answer = kTimes[times >> 6];
    return limits;
}

class Play {
  public:
    Play(Input& input, const host::Limits& limits, std::string secret)
        : input_(input), secret_(std::move(secret)), service_(limits, secret_, now_) {}

    void run() {
        constexpr Operation kOperations[] = {
            &Play::open, &Play::send_bytes, &Play::send_frame, &Play::hello,       &Play::generate,
            &Play::load, &Play::data,       &Play::read_some,  &Play::turns,       &Play::hold,
            &Play::fail, &Play::clock,      &Play::close,      &Play::ask_witness, &Play::shutdown,
        };
        while (!input_.empty()) {
            const std::uint8_t code = input_.u8(), place = input_.u8();
            const std::uint16_t number = input_.u16();
            variant_ = place / kClients;
            (this->*kOperations[code % std::size(kOperations)])(place % kClients, number);
            settle();
        }
        end();
    }

  private:
    using Operation = void (Play::*)(std::size_t place, std::uint16_t number);

    void open(std::size_t place, std::uint16_t) {
        close(place, 0);
        clients_[place] = std::make_unique<Client>(service_.open(now_));
    }

    void close(std::size_t place, std::uint16_t) {
        if (clients_[place]) leave(clients_[place]);
    }

    template <class AnyClient>
    void leave(std::unique_ptr<AnyClient>& client) {
        check(!service_.close(client->id, "left").empty(), "a line for the log");
        client.reset();
    }

    // As the loop does: nothing is read for a connection that holds enough.
    void send(const Client* client, std::string_view bytes) {
        if (client && service_.reads(client->id)) service_.receive(client->id, bytes, now_);
    }

    void send_bytes(std::size_t place, std::uint16_t size) { send(clients_[place].get(), input_.take(size)); }

    void send_frame(std::size_t place, std::uint16_t size) {
        const std::uint8_t number = input_.u8();
        send(clients_[place].get(), frame(number, input_.take(size)));
    }

    std::string right_hello() const {
        chat::Hello hello;
        hello.magic = chat::kMagic;
        hello.version = chat::kVersion;
        hello.secret = secret_;
        return hello.frame();
    }

    void hello(std::size_t place, std::uint16_t) { send(clients_[place].get(), right_hello()); }

    void generate(std::size_t place, std::uint16_t number) {
        chat::Generate message;
        message.keep = number & 31;
        message.ids.assign(1 + (number >> 5 & 63), variant_);
        message.max_tokens = 1 + (number >> 11);
        message.top_p = 1;
        message.temperature = variant_ % 3;
        send(clients_[place].get(), message.frame());
    }

    void load(std::size_t place, std::uint16_t kv_len) {
        chat::Load message;
        message.model_id = model::kModelId;
        message.kv_len = kv_len % (model::kContext + 2);
        message.bytes = host::Model::state_bytes(message.kv_len);
        send(clients_[place].get(), message.frame());
    }

    // Up to 128 KiB, odd numbers of bytes too. Half of the variants hold numbers that are not finite.
    void data(std::size_t place, std::uint16_t number) {
        const std::string bytes(2 * std::size_t{number} + (variant_ & 1),
                                (variant_ & 2) != 0 ? '\x7f' : '\x3c');
        chat::Data message;
        message.bytes = bytes;
        send(clients_[place].get(), message.frame());
    }

    void read_some(std::size_t place, std::uint16_t number) {
        if (clients_[place]) read(*clients_[place], std::size_t{number} * 16 + 1);
    }

    void read(Client& client, std::size_t most) {
        for (;;) {
            const std::string_view output = service_.output(client.id).substr(0, most);
            if (output.empty()) return;
            client.hear(output);
            most -= output.size();
            service_.sent(client.id, output.size(), now_);
        }
    }

    void turns(std::size_t, std::uint16_t number) {
        finish();
        for (int left = 1 + number % 128; left > 0; --left) {
            if (!(held_ = service_.take())) return;
            finish();
        }
    }

    // The device begins with a turn, or ends it.
    void hold(std::size_t, std::uint16_t) {
        if (held_)
            finish();
        else
            held_ = service_.take();
    }

    void finish() {
        if (!held_) return;
        const bool to_fail = playing::failure != DLAVM_OK;
        perform(device_model(), *held_);
        check(held_->error.empty() || held_->refused || (to_fail && playing::failure == DLAVM_OK),
              "the device is asked nothing wrong: " + held_->error);
        held_->microseconds = 7;  // what it really took differs from run to run
        service_.finish(std::move(*std::exchange(held_, std::nullopt)), now_);
    }

    void fail(std::size_t, std::uint16_t number) { playing::failure = (number & 1) != 0 ? 5 : DLAVM_SYSTEM; }

    void clock(std::size_t, std::uint16_t number) {
        now_ += (variant_ & 1) != 0 ? std::size_t{number} * 10 : number;
        const std::optional<Milliseconds> next = service_.tick(now_);
        check(!next || *next > now_, "a next time that is to come");
        for (std::unique_ptr<Client>& client : clients_)
            if (client && service_.abandoned(client->id)) leave(client);
        if (witness_ && service_.abandoned(witness_->id)) leave(witness_);
    }

    void ask_witness(std::size_t, std::uint16_t number) {
        if (witness_ && service_.closing(witness_->id)) leave(witness_);
        if (!witness_) {
            witness_ = std::make_unique<Witness>(service_.open(now_));
            send(witness_.get(), right_hello());
            settle();
        }
        if (!witness_->idle() || service_.closing(witness_->id)) return;
        const std::string asked = witness_->ask(number).frame();
        std::size_t sent = 0;
        const std::size_t cut = number % asked.size();  // where bytes are cut does not matter
        for (const std::size_t end : {cut, asked.size() - 1, asked.size()})
            send(witness_.get(), std::string_view(asked).substr(0, end).substr(std::exchange(sent, end)));
    }

    // Rarely, as little follows.
    void shutdown(std::size_t, std::uint16_t number) {
        if (number != 0xffff) return;
        service_.shutdown(now_);
        stopping_ = true;
    }

    // Clients read what there is, except for the slow ones.
    void settle() {
        for (std::size_t place = 0; place < kClients; ++place) {
            if (!clients_[place]) continue;
            if (place < kClients - kSlowClients) read(*clients_[place], ~std::size_t{0});
            check(service_.output(clients_[place]->id).size() < host::kUnreadBytes + host::kPieceBytes + 4096,
                  "output that waits: bounded");
        }
        if (witness_) read(*witness_, ~std::size_t{0});
    }

    // Everyone leaves: nothing may be left of them.
    void end() {
        for (std::unique_ptr<Client>& client : clients_)
            if (client) leave(client);
        if (witness_) leave(witness_);
        finish();
        check(service_.empty() && !service_.take(), "nobody is left");
        if (stopping_) return;
        const ConversationId id = service_.open(now_);
        service_.receive(id, right_hello() + chat::Stats().frame(), now_);
        std::string_view output = service_.output(id);
        output.remove_prefix(wire::kHeaderBytes + wire::parse_header(output.data()).length);
        const auto statistics = chat::Statistics::decode(output.substr(wire::kHeaderBytes));
        check(statistics.connections == 1 && statistics.conversations == 0 && statistics.answering == 0,
              "every connection and cache is given back");
        service_.close(id, "");
    }

    Input& input_;
    Milliseconds now_ = 1000;
    std::string secret_;
    host::Service service_;
    std::array<std::unique_ptr<Client>, kClients> clients_;
    std::unique_ptr<Witness> witness_;
    std::optional<host::Turn> held_;
    std::size_t variant_ = 0;  // of the operation
    bool stopping_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const host::Limits limits = read_limits(input);
    const std::string secret = (input.u8() & 1) != 0 ? kSecret : "";
    playing::reset();
    Play(input, limits, secret).run();
    return 0;
}
