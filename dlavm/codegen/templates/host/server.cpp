// Serves the model to clients over TCP. One thread moves bytes, the other one works the device.
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <thread>

#include "net.hpp"
#include "options.hpp"

namespace {

constexpr rlim_t kSpareDescriptors = 128;  // for the device, the refused, the standard streams

host::Wake* signal_target = nullptr;
volatile std::sig_atomic_t signals_seen = 0;

void on_signal(int number) {
    if (signals_seen != 0) _exit(128 + number);
    signals_seen = 1;
    signal_target->stop();
}

// A line on standard error. Where nobody takes it, as at a terminal that is paused, it is dropped: clients do
// not wait for a log.
void log_line(const std::string& line) {
    pollfd log = {STDERR_FILENO, POLLOUT, 0};
    if (poll(&log, 1, 0) == 1 && (log.revents & POLLOUT) != 0) std::cerr << line + "\n";
}

void install_signals(host::Wake& wake) {
    signal_target = &wake;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    for (const int number : {SIGTERM, SIGINT}) sigaction(number, &action, nullptr);
}

void raise_descriptor_limit(std::uint32_t connections) {
    const rlim_t needed = connections + kSpareDescriptors;
    rlimit limit = {};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
    limit.rlim_cur = std::min(needed, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < needed)
        std::cerr << "server: warning: --max-connections " << connections << ": the system allows "
                  << limit.rlim_cur << " open files, fewer than " << needed << "\n";
}

// Works the device for a service, until it goes out of scope.
class DeviceThread {
  public:
    DeviceThread(host::Model& model, host::SharedService& shared, host::Wake& wake)
        : shared_(shared), thread_([&model, &wake, this] { work(model, wake); }) {}

    ~DeviceThread() {
        {
            const std::lock_guard<std::mutex> lock(shared_.mutex);
            stopping_ = true;
        }
        shared_.work.notify_one();
        thread_.join();
    }

  private:
    void work(host::Model& model, host::Wake& wake) {
        std::unique_lock<std::mutex> lock(shared_.mutex);
        for (;;) {
            std::optional<host::Turn> turn;
            shared_.work.wait(lock, [&] { return stopping_ || (turn = shared_.service.take()); });
            if (!turn) return;
            lock.unlock();
            perform(model, *turn);
            if (!turn->error.empty() && !turn->refused) log_line("server: device: " + turn->error);
            lock.lock();
            shared_.service.finish(std::move(*turn), host::steady_now());
            wake.wake();
        }
    }

    host::SharedService& shared_;
    bool stopping_ = false;
    std::thread thread_;
};

void serve(const host::Options& options) {
    const std::string secret = options.secret_file.empty() ? "" : host::read_secret(options.secret_file);
    std::signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit(options.limits.connections);
    host::Listener listener(options.listen);  // before the upload, which may take long
    if (secret.empty() && !listener.is_loopback())
        std::cerr << "server: warning: --listen " << listener.address()
                  << ": anyone who reaches it may use it; see --secret-file\n";
    host::Model model = host::Model::open(options.device, options.artifact, options.device_options);
    host::SharedService shared{host::Service(options.limits, secret, host::steady_now())};
    host::Wake wake;
    install_signals(wake);
    listener.listen();
    std::cout << "listening on " << listener.address() << std::endl;
    const auto log = [&](const std::string& line) {
        if (!options.quiet) log_line(line);
    };
    host::Loop loop(std::move(listener), shared, wake, options.limits.connections, log);
    const DeviceThread device(model, shared, wake);
    loop.run();
}

void run(const std::vector<std::string>& arguments) {
    const std::optional<host::Options> options = host::parse_options(arguments);
    if (options) return serve(*options);
    std::cout << host::help_text();
    if (!std::cout.flush()) throw std::runtime_error("standard output: expected to write, got an error");
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "server: " << error.what() << "\n";
        return 2;
    }
}
