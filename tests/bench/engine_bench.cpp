// The engines against each other: a process drives a host behind a TAP, and the kernel pings it.
//
//   engine_bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//
// Everything happens in a network namespace of the benchmark's own.
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>

#include "io/clock.h"
#include "io/config.h"
#include "io/engine.h"
#include "io/netlink.h"
#include "stack/base/checksum.h"
#include "stack/host.h"
#include "tests/support/heap_arena.h"
#include "tests/support/seeded_random.h"

namespace ustack::io {
namespace {

constexpr int kAnyCpu = -1;

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu == kAnyCpu)
    for (int i = 0; i < CPU_SETSIZE; ++i) CPU_SET(i, &set);
  else
    CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

/// The body of the driving process; never returns.
[[noreturn]] void drive(Link link, EngineKind kind, int cpu) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pin(cpu);
  test::HeapArena arena(true);
  test::SeededRandom random(1);
  HostConfig config;
  config.network.link = link.info();
  config.network.link.mac = *parse_mac("02:00:00:00:00:02");
  config.network.addresses[0] = {IpAddress::v4(192, 0, 2, 2), 24};
  config.network.address_count = 1;
  Host* host = Host::create(arena, random, config, now());
  Engine* engine = Engine::create(kind, link, *host);
  for (;;) {
    engine->transmit();
    engine->wait({.deadline = host->next_deadline()});
    Instant at = now();
    engine->deliver(at);
    host->run(at);
  }
}

/// A namespace, a TAP with a driven host behind it, and a socket to ping it from.
class Bed {
 public:
  Bed(EngineKind kind, int cpu) { set_up(kind, cpu); }
  Bed(const Bed&) = delete;
  Bed& operator=(const Bed&) = delete;
  ~Bed() {
    if (driver_ <= 0) return;
    kill(driver_, SIGKILL);
    waitpid(driver_, nullptr, 0);
    // A device whose process had a ring stays for some milliseconds, with its route.
    std::unique_ptr<Netlink> netlink;
    Netlink::LinkState state;
    if (Netlink::open(&netlink)) return;
    while (!netlink->get_link(device_, &state)) usleep(1000);
  }

  const std::string& error() const { return error_; }

 private:
  void set_up(EngineKind kind, int cpu) {
    static bool isolated = unshare(CLONE_NEWNET) == 0;
    if (!isolated) return fail("no right to make a network namespace");
    Link link;
    if (auto problem = open_tun_device("tap%d", true, &link)) return fail(problem->message);
    device_ = link.name();
    std::unique_ptr<Netlink> netlink;
    if (auto problem = Netlink::open(&netlink)) return fail(problem->message);
    netlink->add_address(device_, {IpAddress::v4(192, 0, 2, 1), 24});
    netlink->set_up(device_);
    if (auto problem = netlink->wait_until_up(device_, 5000)) return fail(problem->message);
    driver_ = fork();
    if (driver_ == 0) drive(std::move(link), kind, cpu);
    link = Link();
    icmp_ = Descriptor(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    int room = 1 << 22;
    setsockopt(icmp_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    timeval patience{2, 0};
    setsockopt(icmp_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    to_.sin_family = AF_INET;
    to_.sin_addr.s_addr = htonl(0xc0000202);
  }

 public:
  bool send_pings(int count, size_t payload) {
    std::string message(8 + payload, 'p');
    auto* p = reinterpret_cast<std::byte*>(message.data());
    std::memset(p, 0, 8);
    p[0] = std::byte{ICMP_ECHO};
    store_be16(p + 2, checksum_of(Bytes(p, message.size())));
    for (int i = 0; i < count; ++i) {
      if (sendto(icmp_.get(), message.data(), message.size(), 0, reinterpret_cast<sockaddr*>(&to_),
                 sizeof to_) < 0)
        return false;
    }
    return true;
  }
  bool receive_replies(int count) {
    char packet[2048];
    while (count > 0) {
      if (recv(icmp_.get(), packet, sizeof packet, 0) < 0) return false;
      count -= packet[20] == ICMP_ECHOREPLY;
    }
    return true;
  }

 private:
  void fail(const std::string& why) { error_ = why; }

  std::string error_, device_;
  pid_t driver_ = -1;
  Descriptor icmp_;
  sockaddr_in to_{};
};

/// `batch` echo requests at once, then all their answers. The driver on CPU 0; the kernel's side there, too,
/// or on 1.
void ping(benchmark::State& state, EngineKind kind, int batch, size_t payload, bool two_cpus) {
  Bed bed(kind, 0);
  if (!bed.error().empty()) return state.SkipWithError(bed.error().c_str());
  pin(two_cpus ? 1 : 0);
  if (!bed.send_pings(1, payload) || !bed.receive_replies(1)) return state.SkipWithError("no answer");
  for (auto _ : state) {
    if (!bed.send_pings(batch, payload) || !bed.receive_replies(batch)) {
      state.SkipWithError("an answer was lost");
      break;
    }
  }
  state.SetItemsProcessed(state.iterations() * batch);
  pin(kAnyCpu);
}

#define USTACK_PING(name, batch, payload, two_cpus)                                                  \
  BENCHMARK_CAPTURE(ping, name##_plain, EngineKind::plain, batch, payload, two_cpus)->UseRealTime(); \
  BENCHMARK_CAPTURE(ping, name##_uring, EngineKind::uring, batch, payload, two_cpus)->UseRealTime(); \
  BENCHMARK_CAPTURE(ping, name##_automatic, EngineKind::automatic, batch, payload, two_cpus)->UseRealTime()

USTACK_PING(lone_one_cpu, 1, 56, false);
USTACK_PING(lone_two_cpus, 1, 56, true);
USTACK_PING(batch8_one_cpu, 8, 56, false);
USTACK_PING(batch64_one_cpu, 64, 56, false);
USTACK_PING(batch64_two_cpus, 64, 56, true);
USTACK_PING(batch64_1400_one_cpu, 64, 1400, false);
USTACK_PING(batch64_1400_two_cpus, 64, 1400, true);

}  // namespace
}  // namespace ustack::io
