#include "tests/support/simulator.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/socket.h>

namespace ustack::test {

namespace {

MacAddress mac_number(uint64_t n) {
  // Locally administered, unicast.
  MacAddress mac;
  mac.bytes = {
      std::byte{0x02},          std::byte{0}, std::byte{0}, std::byte{0}, static_cast<std::byte>(n >> 8),
      static_cast<std::byte>(n)};
  return mac;
}

LogLevel level_from_environment(LogLevel otherwise) {
  const char* text = std::getenv("USTACK_TEST_LOG");
  if (text == nullptr) return otherwise;
  std::string_view level(text);
  if (level == "trace") return LogLevel::trace;
  if (level == "debug") return LogLevel::debug;
  if (level == "info") return LogLevel::info;
  return otherwise;
}

uint32_t shards_from_environment() {
  const char* text = std::getenv("USTACK_TEST_SHARDS");
  return text != nullptr ? static_cast<uint32_t>(std::atoi(text)) : 1;
}

}  // namespace

void TestSocket::close() {
  if (Socket* socket = std::exchange(socket_, nullptr)) socket->release();
}

TestSocket TestSocket::accept() {
  auto connection = socket_->accept();
  return connection.ok() ? TestSocket(*connection) : TestSocket();
}

Status TestSocket::connect(const SocketAddress& remote) { return connect_in_shard(socket_, remote); }

int64_t TestSocket::send(Bytes bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    auto room = socket_->reserve_send(bytes.size() - sent);
    if (!room.ok()) return sent > 0 ? static_cast<int64_t>(sent) : -room.code();
    size_t filled = 0;
    for (uint32_t i = 0; i < room->count; ++i) {
      MutableBytes run = room->runs[i];
      std::memcpy(run.data(), bytes.data() + sent + filled, run.size());
      filled += run.size();
    }
    socket_->commit_send(filled, {});
    sent += filled;
  }
  return static_cast<int64_t>(sent);
}

std::string TestSocket::receive(size_t limit, int* code) {
  std::string text;
  int error = 0;
  while (text.size() < limit) {
    auto view = socket_->view_receive(limit - text.size(), 0);
    if (!view.ok()) {
      error = view.code();
      break;
    }
    size_t size = 0;
    for (uint32_t i = 0; i < view->count; ++i) {
      text.append(reinterpret_cast<const char*>(view->runs[i].data()), view->runs[i].size());
      size += view->runs[i].size();
    }
    socket_->consume(size);
    if (size == 0) break;
  }
  if (code != nullptr) *code = text.empty() ? error : 0;
  return text;
}

Status TestSocket::set(int level, int name, int value) {
  return socket_->set_option(level, name, std::as_bytes(std::span(&value, 1)));
}

int TestSocket::get_int(int level, int name) {
  int value = 0;
  auto size = socket_->get_option(level, name, std::as_writable_bytes(std::span(&value, 1)));
  return size.ok() ? value : -size.code();
}

TestHost::TestHost(Simulator& net, const HostOptions& options, uint64_t seed)
    : net_(net), options_(options), random_(seed) {
  HostConfig config;
  config.acks_wait = options.acks_wait || std::getenv("USTACK_TEST_ACKS_WAIT") != nullptr;
  config.network.link = options.link;
  config.network.addresses[0] = options.address;
  config.network.address_count = 1;
  if (options.second.address.family() != Family::unspecified)
    config.network.addresses[config.network.address_count++] = options.second;
  if (options.loopback)
    config.network.addresses[config.network.address_count++] = {IpAddress::v4(127, 0, 0, 1), 8};
  if (options.gateway.family() != Family::unspecified) {
    config.network.gateways[0] = options.gateway;
    config.network.gateway_count = 1;
  }
  config.settings = options.settings;
  config.log = Log(level_from_environment(options.log), this);
  if (const uint32_t count = options.shards != 0 ? options.shards : shards_from_environment(); count > 1) {
    shards_.steering = Steering(count, random_);
    config.shards = &shards_;
  }
  for (uint32_t i = 0; i < shards_.count(); ++i) {
    config.shard = static_cast<uint8_t>(i);
    hosts_.push_back(Host::create(arena_, random_, config, net.now()));
    hosts_.back()->network().start();
  }
  host_ = hosts_.front();
}

TestHost::~TestHost() {
  account();
  for (size_t i = hosts_.size(); i-- > 0;) Host::destroy(hosts_[i]);
}

Counters& TestHost::counters() {
  if (hosts_.size() == 1) return host_->counters();
  sum_ = {};
  for (Host* host : hosts_) add(sum_, host->counters());
  return sum_;
}

Instant TestHost::next_deadline() const {
  Instant next = kNever;
  if (vanished_) return next;
  for (Host* host : hosts_) next = std::min(next, host->next_deadline());
  return next;
}

void TestHost::run_hosts() {
  do {
    for (Host* host : hosts_) host->run(net_.now());
  } while (Host::hand_over(shards_) && hosts_.size() > 1);
}

void TestHost::write(LogLevel, std::string_view line) {
  std::fprintf(stderr, "%12.6f %s: %.*s\n",
               std::chrono::duration<double>(net_.now().time_since_epoch()).count(), options_.name.c_str(),
               static_cast<int>(line.size()), line.data());
}

TestSocket TestHost::socket() {
  auto socket = host_->open_socket(address().is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
  return socket.ok() ? TestSocket(*socket) : TestSocket();
}

TestSocket TestHost::listen(uint16_t port, int backlog) {
  TestSocket listener = socket();
  if (!listener || !listener->bind({IpAddress::any(address().family()), port}).ok() ||
      !listener->listen(backlog).ok())
    return {};
  return listener;
}

TestSocket TestHost::connect(const SocketAddress& remote) {
  TestSocket connection = socket();
  Status status = connection.connect(remote);
  if (!status.ok() && status.code() != EINPROGRESS) return {};
  return connection;
}

void TestHost::deliver(WireFrame frame) {
  if (vanished_) return;
  // Often by another's queue than it belongs to.
  Host& host = *hosts_[delivered_++ % hosts_.size()];
  RxFrame received;
  received.data.block = host.blocks().allocate(static_cast<uint32_t>(frame.bytes.size()));
  if (!received.data.block) {
    ++host.counters().UstackRxNoMemory;
    return;
  }
  received.data.length = static_cast<uint32_t>(frame.bytes.size());
  std::memcpy(received.data.data(), frame.bytes.data(), frame.bytes.size());
  received.offload = frame.offload;
  received.arrived = net_.now();
  host.receive(std::move(received), net_.now());
  received = RxFrame();
  turn();
}

void TestHost::turn() {
  if (vanished_) return;
  run_hosts();
  for (auto& application : applications_) application();
  run_hosts();
  for (Host* host : hosts_) {
    if (!busy_) host->send_owed_acks();
    transmit(*host);
  }
  if (turns_ < 200 || turns_ % 256 == 0) account();
  ++turns_;
}

void TestHost::transmit(Host& host) {
  while (TxFrame* frame = host.transmit_queue().pop_front()) {
    WireFrame wire;
    wire.offload = frame->offload;
    wire.bytes.reserve(frame->size());
    MutableBytes header = frame->header();
    wire.bytes.assign(header.begin(), header.end());
    for (const Slice& slice : frame->payload()) {
      Bytes bytes(slice.source(), slice.length);
      wire.bytes.insert(wire.bytes.end(), bytes.begin(), bytes.end());
    }
    host.frames().release(frame);
    net_.note_frame(wire);
    if (wire_) wire_(std::move(wire));
  }
}

void TestHost::account() {
  uint64_t wrong = 0;
  for (Host* host : hosts_) wrong += host->unaccounted();
  if (wrong == 0) return;
  std::fprintf(stderr, "%s: %llu pieces of memory are unaccounted for\n", options_.name.c_str(),
               static_cast<unsigned long long>(wrong));
  std::abort();
}

/// Classic pcap, nanoseconds, readable by tcpdump and tshark.
struct Simulator::PcapFile {
  explicit PcapFile(const std::string& path, bool ethernet) : file(std::fopen(path.c_str(), "wb")) {
    if (file == nullptr) return;
    uint32_t header[] = {0xa1b23c4d, 0x00040002, 0, 0, 262144, ethernet ? 1U : 101U};
    std::fwrite(header, sizeof header, 1, file);
  }
  ~PcapFile() {
    if (file != nullptr) std::fclose(file);
  }
  void write(const std::vector<std::byte>& bytes, Instant now) {
    if (file == nullptr) return;
    auto ns = static_cast<uint64_t>(now.time_since_epoch().count());
    auto size = static_cast<uint32_t>(bytes.size());
    uint32_t record[] = {static_cast<uint32_t>(ns / 1'000'000'000), static_cast<uint32_t>(ns % 1'000'000'000),
                         size, size};
    std::fwrite(record, sizeof record, 1, file);
    std::fwrite(bytes.data(), 1, bytes.size(), file);
  }
  std::FILE* file;
};

Simulator::Simulator(uint64_t seed) : seed_(seed), events_(Instant(1000s)) {}
Simulator::~Simulator() = default;

void Simulator::capture(const std::string& path) {
  bool ethernet = hosts_.empty() || hosts_.front()->options().link.kind == LinkInfo::Kind::ethernet;
  pcap_ = std::make_unique<PcapFile>(path, ethernet);
}

void Simulator::note_frame(const WireFrame& frame) {
  ++frames_;
  auto mix = [this](uint64_t value) { trace_hash_ = (trace_hash_ ^ value) * 0x100000001b3; };
  mix(static_cast<uint64_t>(now().time_since_epoch().count()));
  mix(frame.bytes.size());
  // Headers tell the runs apart; hashing a gigabyte of payload would only cost time.
  for (size_t i = 0; i < std::min<size_t>(frame.bytes.size(), 80); ++i)
    mix(std::to_integer<uint64_t>(frame.bytes[i]));
  if (pcap_) pcap_->write(frame.bytes, now());
}

TestHost& Simulator::add_host(HostOptions options) {
  if (options.link.mac.is_zero()) options.link.mac = mac_number(hosts_.size() + 1);
  hosts_.push_back(std::make_unique<TestHost>(*this, options, seed_ * 1000003 + hosts_.size()));
  return *hosts_.back();
}

Cable& Simulator::connect(TestHost& a, TestHost& b, const Impairments& forward, const Impairments& backward) {
  auto cable = std::make_unique<Cable>();
  uint64_t seed = seed_ * 7919 + cables_.size() * 2;
  // A frame is delivered by an event of its own, never from inside the sender's turn.
  auto to = [this](TestHost& host) {
    return [this, &host](WireFrame frame) {
      events_.at(now(), [&host, frame = std::move(frame)]() mutable { host.deliver(std::move(frame)); });
    };
  };
  auto adapted = [](Impairments impairments, const TestHost& host) {
    impairments.ethernet = const_cast<TestHost&>(host).options().link.kind == LinkInfo::Kind::ethernet;
    return impairments;
  };
  cable->forward = std::make_unique<Emulator>(events_, adapted(forward, a), seed, to(b));
  cable->backward = std::make_unique<Emulator>(events_, adapted(backward, b), seed + 1, to(a));
  a.set_wire([emulator = cable->forward.get()](WireFrame frame) { emulator->input(std::move(frame)); });
  b.set_wire([emulator = cable->backward.get()](WireFrame frame) { emulator->input(std::move(frame)); });
  cables_.push_back(std::move(cable));
  return *cables_.back();
}

void Simulator::connect_all(const std::vector<TestHost*>& hosts, const Impairments& each) {
  for (TestHost* from : hosts) {
    auto flood = [this, from, hosts](WireFrame frame) {
      for (TestHost* to : hosts) {
        if (to == from) continue;
        events_.at(now(), [to, frame]() mutable { to->deliver(std::move(frame)); });
      }
    };
    hub_ports_.push_back(
        std::make_unique<Emulator>(events_, each, seed_ * 104729 + hub_ports_.size(), flood));
    from->set_wire(
        [emulator = hub_ports_.back().get()](WireFrame frame) { emulator->input(std::move(frame)); });
  }
}

bool Simulator::run_until(const std::function<bool()>& done, Duration limit) {
  Instant end = now() + limit;
  for (auto& host : hosts_) host->turn();
  for (;;) {
    if (done()) return true;
    Instant next = events_.next();
    for (auto& host : hosts_) next = std::min(next, host->next_deadline());
    if (next > end) break;
    events_.advance_to(next);
    for (auto& host : hosts_)
      if (host->next_deadline() <= now()) host->turn();
  }
  events_.advance_to(end);
  for (auto& host : hosts_) host->turn();
  return done();
}

PatternSender::PatternSender(TestHost& host, Socket& socket, const Pattern& pattern, uint64_t total,
                             bool close_after)
    : socket_(socket), pattern_(pattern), total_(total), close_after_(close_after) {
  host.on_turn([this] { pump(); });
}

void PatternSender::pump() {
  while (sent_ < total_ && error_ == 0) {
    auto room = socket_.reserve_send(std::min<uint64_t>(total_ - sent_, 256 * 1024));
    if (!room.ok()) {
      if (room.code() != EAGAIN) error_ = room.code();
      return;
    }
    uint64_t at = sent_;
    for (uint32_t i = 0; i < room->count; ++i) {
      pattern_.fill(at, room->runs[i]);
      at += room->runs[i].size();
    }
    socket_.commit_send(at - sent_, {});
    sent_ = at;
  }
  if (sent_ == total_ && std::exchange(close_after_, false))
    error_ = socket_.shutdown(ShutdownHow::write).code();
}

PatternReceiver::PatternReceiver(TestHost& host, Socket& socket, const Pattern& pattern)
    : socket_(socket), pattern_(pattern) {
  host.on_turn([this] { pump(); });
}

void PatternReceiver::pump() {
  while (!paused && !at_end_ && error_ == 0) {
    auto view = socket_.view_receive(1 << 20, 0);
    if (!view.ok()) {
      if (view.code() != EAGAIN) error_ = view.code();
      return;
    }
    if (view->bytes == 0) at_end_ = true;
    for (uint32_t i = 0; i < view->count; ++i) {
      intact_ = intact_ && pattern_.matches(received_, view->runs[i]);
      received_ += view->runs[i].size();
    }
    socket_.consume(view->bytes);
  }
}

}  // namespace ustack::test
