// TCP by itself: two hosts in one thread, frames copied from one to the other as a link would, time as it
// passes. Each has the memory of the library: a region that processes could share.
#include <benchmark/benchmark.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "io/shared_region.h"
#include "stack/host.h"
#include "tests/support/seeded_random.h"

namespace ustack {
namespace {

/// What benchmarks have skipped of time in which nothing happens.
Duration skipped{0};

Instant clock_now() {
  return Instant(std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch())) +
         skipped;
}

class BenchHost {
 public:
  BenchHost(uint8_t last, bool superframes, const Settings& settings) : random_(last) {
    HostConfig config;
    config.settings = settings;
    config.network.link = {.kind = LinkInfo::Kind::ip,
                           .mtu = 1500,
                           .checksum_offload = true,
                           .tcp_segmentation_v4 = superframes};
    config.network.addresses[0] = {IpAddress::v4(192, 0, 2, last), 24};
    config.network.address_count = 1;
    if (io::SharedRegion::reserve(&region_)) std::abort();
    SharedArena* arena = SharedArena::create(region_->base(), region_->size(), *region_);
    host_ = Host::create(*arena, random_, config, clock_now());
  }
  ~BenchHost() {
    Host::destroy(host_);
    io::SharedRegion::unmap(region_);
  }
  BenchHost(const BenchHost&) = delete;
  BenchHost& operator=(const BenchHost&) = delete;
  Host& operator*() { return *host_; }
  Host* operator->() { return host_; }

  /// Hands over what has come out; how many frames that were.
  int flush_to(BenchHost& other) {
    int frames = 0;
    Instant now = clock_now();
    while (TxFrame* frame = host_->transmit_queue().pop_front()) {
      RxFrame received;
      received.data.block = other->blocks().allocate(frame->size());
      received.data.length = frame->size();
      received.offload = frame->offload;
      received.arrived = now;
      std::byte* out = received.data.data();
      std::memcpy(out, frame->header().data(), frame->header().size());
      out += frame->header().size();
      for (const Slice& slice : frame->payload()) {
        std::memcpy(out, slice.data(), slice.length);
        out += slice.length;
      }
      host_->frames().release(frame);
      other->receive(std::move(received), now);
      ++frames;
    }
    if (frames > 0) other->run(now);
    return frames;
  }

 private:
  io::SharedRegion* region_ = nullptr;
  test::SeededRandom random_;
  Host* host_ = nullptr;
};

class Pair {
 public:
  explicit Pair(bool superframes, const Settings& settings = {})
      : client(1, superframes, settings), server(2, superframes, settings) {
    listener = listen_at(80);
  }
  ~Pair() { listener->release(); }

  void settle() {
    client->run(clock_now());
    while (client.flush_to(server) + server.flush_to(client) > 0) {
    }
  }
  Socket* listen_at(uint16_t port) {
    Socket* made = *server->open_socket(AF_INET, SOCK_STREAM, 0);
    (void)made->bind({IpAddress::any(Family::ipv4), port});
    (void)made->listen(1000);
    return made;
  }
  void connect() { connect(*listener, 80); }
  void connect(Socket& to, uint16_t port) {
    near = *client->open_socket(AF_INET, SOCK_STREAM, 0);
    (void)near->connect({IpAddress::v4(192, 0, 2, 2), port});
    settle();
    far = *to.accept();
  }
  void close() {
    near->release();
    settle();
    far->release();
    settle();
  }
  static size_t send(Socket& socket, const std::string& data) {
    auto room = socket.reserve_send(data.size());
    if (!room.ok()) return 0;
    size_t at = 0;
    for (uint32_t i = 0; i < room->count; ++i) {
      std::memcpy(room->runs[i].data(), data.data() + at, room->runs[i].size());
      at += room->runs[i].size();
    }
    socket.commit_send(at, {});
    return at;
  }
  static size_t receive(Socket& socket, std::vector<std::byte>& into) {
    auto view = socket.view_receive(into.size(), 0);
    if (!view.ok()) return 0;
    size_t at = 0;
    for (uint32_t i = 0; i < view->count; ++i) {
      std::memcpy(into.data() + at, view->runs[i].data(), view->runs[i].size());
      at += view->runs[i].size();
    }
    socket.consume(at);
    return at;
  }
  /// `data` there and back.
  void exchange(const std::string& data, std::vector<std::byte>& sink) {
    send(*near, data);
    client.flush_to(server);
    receive(*far, sink);
    send(*far, data);
    server.flush_to(client);
    receive(*near, sink);
    client.flush_to(server);
  }

  BenchHost client, server;
  Socket *listener = nullptr, *near = nullptr, *far = nullptr;
};

/// One stream as fast as it goes; the argument says whether the link cuts superframes.
void BM_TcpBulk(benchmark::State& state) {
  Pair pair(state.range(0) != 0);
  pair.connect();
  std::string data(256 * 1024, 'x');
  std::vector<std::byte> sink(256 * 1024);
  uint64_t bytes = 0;
  for (auto _ : state) {
    while (Pair::send(*pair.near, data) > 0) {
    }
    pair.client.flush_to(pair.server);
    while (size_t n = Pair::receive(*pair.far, sink)) bytes += n;
    pair.server.flush_to(pair.client);
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes));
  pair.close();
}
BENCHMARK(BM_TcpBulk)->Arg(1)->Arg(0)->ArgName("superframes");

/// 64 bytes there and back.
void BM_TcpRequestAnswer(benchmark::State& state) {
  Pair pair(true);
  pair.connect();
  std::string data(64, 'x');
  std::vector<std::byte> sink(4096);
  for (auto _ : state) {
    pair.exchange(data, sink);
  }
  pair.close();
}
BENCHMARK(BM_TcpRequestAnswer);

/// The same with three seconds in between; the argument says whether both ends then come to rest.
void BM_TcpRequestAnswerFromTimeToTime(benchmark::State& state) {
  Settings settings;
  settings.tcp_awake = state.range(0) != 0 ? 0 : 1024;
  Pair pair(true, settings);
  pair.connect();
  std::string data(64, 'x');
  std::vector<std::byte> sink(4096);
  for (auto _ : state) {
    for (int i = 0; i < 3; ++i) {
      skipped += std::chrono::seconds(1);
      pair.client->run(clock_now());
      pair.server->run(clock_now());
    }
    pair.exchange(data, sink);
  }
  state.counters["rests"] = static_cast<double>(pair.client->counters().UstackTcpRests);
  pair.close();
}
BENCHMARK(BM_TcpRequestAnswerFromTimeToTime)->Arg(0)->Arg(1)->ArgName("rest");

/// connect, accept, a byte each way, close.
void BM_TcpConnection(benchmark::State& state) {
  Pair pair(true);
  std::string data(1, 'x');
  std::vector<std::byte> sink(4096);
  for (auto _ : state) {
    pair.connect();
    Pair::send(*pair.near, data);
    pair.settle();
    Pair::receive(*pair.far, sink);
    Pair::send(*pair.far, data);
    pair.settle();
    Pair::receive(*pair.near, sink);
    pair.close();
  }
}
// TIME-WAITs hold the ephemeral ports for 60 s.
BENCHMARK(BM_TcpConnection)->Iterations(20000);

/// Two hosts with so many established connections between them, all at rest but for the last used.
class Crowd : public Pair {
 public:
  static constexpr int64_t kOfAPort = 50000;

  explicit Crowd(int64_t count) : Pair(true, with_many_ports()), sink(4096) {
    connections_.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const auto port = static_cast<uint16_t>(1000 + i / kOfAPort);
      if (i % kOfAPort == 0) listeners_.push_back(listen_at(port));
      connect(*listeners_.back(), port);
      connections_.push_back({near, far});
    }
    for (int i = 0; i < 10; ++i) {
      skipped += std::chrono::seconds(1);
      settle();
      server->run(clock_now());
    }
  }
  ~Crowd() {
    for (const Ends& ends : connections_) {
      use(ends);
      close();
    }
    for (Socket* each : listeners_) each->release();
  }

  void request_to(size_t i) {
    use(connections_[i]);
    exchange(data, sink);
  }
  void open_and_close() {
    connect();
    exchange(data, sink);
    close();
  }
  size_t size() const { return connections_.size(); }
  double rests() { return static_cast<double>(client->counters().UstackTcpRests); }

 private:
  struct Ends {
    Socket *near, *far;
  };

  static Settings with_many_ports() {
    Settings settings;
    settings.ip_local_port_range = {1024, 65535};
    return settings;
  }
  void use(const Ends& ends) {
    near = ends.near;
    far = ends.far;
  }

  std::string data = std::string(64, 'x');
  std::vector<std::byte> sink;
  std::vector<Ends> connections_;
  std::vector<Socket*> listeners_;
};

/// A request and its answer by any of so many connections, ten thousand a second: of the many, each is at
/// rest again before it is asked the next time.
void BM_TcpRequestAnswerOfAny(benchmark::State& state) {
  Crowd crowd(state.range(0));
  test::SeededRandom random(1);
  for (auto _ : state) {
    skipped += std::chrono::microseconds(100);
    crowd.request_to(random.below(crowd.size()));
  }
  state.counters["rests"] = crowd.rests();
}
BENCHMARK(BM_TcpRequestAnswerOfAny)->Arg(10)->Arg(1000)->Arg(100000)->Arg(1000000)->Iterations(200000);

/// connect, accept, 64 bytes each way, close beside so many connections.
void BM_TcpConnectionBeside(benchmark::State& state) {
  Crowd crowd(state.range(0));
  for (auto _ : state) crowd.open_and_close();
}
BENCHMARK(BM_TcpConnectionBeside)->Arg(10)->Arg(1000)->Arg(100000)->Arg(1000000)->Iterations(50000);

}  // namespace
}  // namespace ustack
