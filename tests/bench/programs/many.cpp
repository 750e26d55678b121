// Many connections at once: what an event costs, and a connection takes, as their number grows.
//
//   many server ADDRESS PORT [--workers 1] [--ports 1]
//   many client ADDRESS PORT [--workers 1] [--ports 1] [--most 10000] [--seconds 2] [--requests 5000]
//
// A process may have no more descriptors than RLIMIT_NOFILE says, so both sides have as many workers as it
// takes, forked off one process, and a port no more connections of one client than that has ports, so a
// worker has several: server worker i answers at `ports` ports from PORT + i * ports on, byte by byte, to
// client worker i; the server's first process answers at PORT + workers * ports. All of them run until they
// are ended.
//
// The client opens 10, 100, 1000, ... connections and leaves them open. At each step it tells, a line of JSON
// each: how many were opened in a second, the time of a request (a byte to and from a connection chosen at
// random, one after the other), how many short connections (connect, a byte each way, close; eight at a time)
// end in a second beside those that are open, and what of the machine's memory is in use: all of it, by
// whomever.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <random>

#include "plain_epoll.h"

namespace {

[[noreturn]] void serve_at(const char* address, int port, int ports) {
  std::vector<int> listeners;
  for (int i = 0; i < ports; ++i)
    listeners.push_back(plain::listen_on(address, std::to_string(port + i).c_str(), 4096, SOCK_NONBLOCK));
  plain::echo_bytes(listeners);
}

[[noreturn]] void serve(const plain::Arguments& arguments) {
  const int workers = static_cast<int>(arguments.number("workers", 1));
  const int ports = static_cast<int>(arguments.number("ports", 1));
  const int port = std::atoi(arguments.at(2));
  // One that is open while they are forked, so that they share a host where there is one.
  int first = socket(AF_INET, SOCK_STREAM, 0);
  if (first < 0) plain::die("socket");
  for (int i = 0; i < workers; ++i) {
    pid_t child = fork();
    if (child < 0) plain::die("fork");
    if (child > 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve_at(arguments.at(1), port + i * ports, ports);
  }
  serve_at(arguments.at(1), port + workers * ports, 1);
}

/// So many ports further.
sockaddr_in further(sockaddr_in server, size_t ports) {
  server.sin_port = htons(static_cast<uint16_t>(ntohs(server.sin_port) + ports));
  return server;
}

/// MB of the machine that are in use.
struct Memory {
  double all = 0;            ///< without what the kernel keeps of files
  double outside_slabs = 0;  ///< of that, without the kernel's objects, such as sockets
  double shared = 0;         ///< shared memory and page tables
};
Memory memory_in_use() {
  std::FILE* file = std::fopen("/proc/meminfo", "r");
  if (file == nullptr) plain::die("/proc/meminfo");
  char name[64];
  long value;
  double total = 0, free_for_use = 0, slabs = 0, shared = 0;
  while (std::fscanf(file, "%63s %ld %*[^\n]", name, &value) == 2) {
    std::string key = name;
    if (key == "MemTotal:") total = static_cast<double>(value);
    if (key == "MemFree:" || key == "Buffers:" || key == "Cached:")
      free_for_use += static_cast<double>(value);
    if (key == "Shmem:") free_for_use -= static_cast<double>(value);
    if (key == "Slab:") slabs = static_cast<double>(value);
    if (key == "Shmem:" || key == "PageTables:") shared += static_cast<double>(value);
  }
  std::fclose(file);
  return {(total - free_for_use) / 1024, (total - free_for_use - slabs) / 1024, shared / 1024};
}

class Connections {
 public:
  /// To `ports` ports from `server` on, in turn.
  Connections(sockaddr_in server, size_t ports) : server_(server), ports_(ports) {}

  /// Opens until there are so many, 64 at a time.
  void open_up_to(size_t count) {
    if (open_.size() >= count) return;
    int set = plain::make_set();
    size_t begun = open_.size();
    auto begin_one = [&] {
      plain::add(set, plain::begin_connection(further(server_, begun % ports_)), EPOLLOUT);
      ++begun;
    };
    while (begun < count && begun < open_.size() + 64) begin_one();
    while (open_.size() < count) {
      epoll_event events[256];
      int ready = plain::wait_for_events(set, events);
      for (int i = 0; i < ready; ++i) {
        epoll_ctl(set, EPOLL_CTL_DEL, events[i].data.fd, nullptr);
        open_.push_back(events[i].data.fd);
        if (begun < count) begin_one();
      }
    }
    close(set);
  }

  /// The time of a request, in us; 0: there is no connection.
  double ask() {
    if (open_.empty()) return 0;
    int fd = open_[random_() % open_.size()];
    char byte = 'x';
    const int64_t began = plain::now_ns();
    if (send(fd, &byte, 1, 0) != 1) plain::die("send");
    pollfd answer{.fd = fd, .events = POLLIN, .revents = 0};
    if (poll(&answer, 1, 10000) != 1) plain::die("no answer for 10 s");
    if (recv(fd, &byte, 1, 0) != 1) plain::die("recv");
    return static_cast<double>(plain::now_ns() - began) / 1e3;
  }

 private:
  sockaddr_in server_;
  size_t ports_;
  std::vector<int> open_;
  std::minstd_rand random_{1};
};

/// What a worker is told to do: to have so many connections, then to ask so often. It answers with the times.
struct Order {
  size_t connections, requests;
};

/// A client's worker, and the pipe ends to it and from it.
struct Worker {
  int to = -1, from = -1;

  /// Its connections go to `ports` ports from `server` on.
  Worker(sockaddr_in server, size_t ports) {
    int down[2], up[2];
    if (pipe(down) < 0 || pipe(up) < 0) plain::die("pipe");
    pid_t child = fork();
    if (child < 0) plain::die("fork");
    if (child > 0) {
      close(down[0]);
      close(up[1]);
      to = down[1];
      from = up[0];
      return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Connections connections(server, ports);
    Order order{};
    while (read(down[0], &order, sizeof order) == sizeof order) {
      connections.open_up_to(order.connections);
      std::vector<double> times(order.requests);
      for (double& time : times) time = connections.ask();
      const size_t count = times.size();
      plain::write_all(up[1], reinterpret_cast<const char*>(&count), sizeof count);
      plain::write_all(up[1], reinterpret_cast<const char*>(times.data()), count * sizeof(double));
    }
    std::exit(0);
  }

  void tell(const Order& order) { plain::write_all(to, reinterpret_cast<const char*>(&order), sizeof order); }
  void read_all(void* where, size_t bytes) {
    auto* at = static_cast<char*>(where);
    while (bytes > 0) {
      ssize_t n = read(from, at, bytes);
      if (n <= 0) plain::die("a worker has died");
      at += n;
      bytes -= static_cast<size_t>(n);
    }
  }
  std::vector<double> answer() {
    size_t count = 0;
    read_all(&count, sizeof count);
    std::vector<double> times(count);
    read_all(times.data(), count * sizeof(double));
    return times;
  }
};

int run_client(const plain::Arguments& arguments) {
  sockaddr_in server = plain::address_of(arguments.at(1), arguments.at(2));
  const auto count = static_cast<size_t>(arguments.number("workers", 1));
  const auto ports = static_cast<size_t>(arguments.number("ports", 1));
  const auto most = static_cast<size_t>(arguments.number("most", 10000));
  const auto requests = static_cast<size_t>(arguments.number("requests", 5000));
  std::vector<Worker> workers;
  for (size_t i = 0; i < count; ++i) workers.emplace_back(further(server, i * ports), ports);
  server = further(server, count * ports);
  size_t before = 0;
  for (size_t step = 10;; step *= 10) {
    step = std::min(step, most);
    const int64_t began = plain::now_ns();
    auto share = [&](size_t i) { return step * (i + 1) / count - step * i / count; };
    for (size_t i = 0; i < count; ++i) {
      workers[i].tell({share(i), 0});
      workers[i].answer();
    }
    const double opened =
        static_cast<double>(step - before) * 1e9 / static_cast<double>(plain::now_ns() - began);
    before = step;
    std::vector<double> times;
    for (size_t i = 0; i < count; ++i) {
      if (share(i) == 0) continue;
      workers[i].tell({share(i), requests / std::min(count, step)});
      for (double each : workers[i].answer()) times.push_back(each);
    }
    std::sort(times.begin(), times.end());
    const double ended = plain::short_connections(server, 8, arguments.number("seconds", 2)).per_second();
    const Memory memory = memory_in_use();
    std::printf(
        "{\"connections\": %zu, \"opened\": %.0f, \"request_us\": %.1f, \"request_p99_us\": %.1f, "
        "\"ended\": %.0f, \"memory_mb\": %.1f, \"outside_slabs_mb\": %.1f, \"shared_mb\": %.1f}\n",
        step, opened, times[times.size() / 2], times[times.size() * 99 / 100], ended, memory.all,
        memory.outside_slabs, memory.shared);
    std::fflush(stdout);
    if (step == most) return 0;
  }
}

}  // namespace

int main(int argc, char** argv) {
  plain::Arguments arguments(argc, argv);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "server")) serve(arguments);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "client")) return run_client(arguments);
  std::fprintf(stderr, "usage: many server|client ADDRESS PORT [options]; see the source\n");
  return 2;
}
