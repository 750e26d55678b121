// The open file of a socket: blocking, time-outs, signals and the program's bytes on top of stack/socket.
#pragma once

#include <sys/socket.h>

#include "shim/address.h"
#include "shim/claims.h"
#include "shim/driver.h"
#include "shim/dual_stack.h"
#include "shim/host_lock.h"
#include "shim/open_file.h"
#include "shim/twins.h"
#include "shim/user_copy.h"
#include "stack/base/intrusive_list.h"
#include "stack/base/result.h"
#include "stack/socket/datagram_socket.h"
#include "stack/socket/socket.h"

namespace ustack::shim {

class AsyncOwner;
class Blocker;
class EscapedEnd;

/// An option that was set on a socket of which it is not yet known whether it is ours or the kernel's.
struct SetOption : ListHook<> {
  /// More than any option of a stream socket has.
  static constexpr size_t kMaxBytes = 64;

  Bytes bytes() const { return {value, length}; }
  int level = 0, name = 0;
  size_t length = 0;
  std::byte value[kMaxBytes]{};
};

/// What recvmsg(2) has to tell of a datagram.
struct DatagramArrival {
  SocketAddress source, destination;
  uint8_t ttl = 0, tos = 0;
  /// Of ip(7).
  DatagramWishes wishes;
  /// Of ipv6(7), which tell all but the first of datagrams over IPv6 only.
  DatagramWishes wishes6;
};

/// Lock: the host's is held by every caller, as `lock` where a call may wait or copy (it is dropped
/// meanwhile). The caller holds a reference (Held). Errors are those of the man page with Linux's precedence;
/// kRestart (blocker.h) where a signal came before anything was moved.
class SocketFile final : public OpenFile {
 public:
  /// Takes over the reference to `socket`; nullptr (and the socket released): no memory. `dual_stack`: what
  /// it is to have a copy of.
  static SocketFile* create(Socket& socket, const DualStack* dual_stack = nullptr);
  /// One for a new socket of the host's, with one reference. ENOBUFS, and what Host::open_socket() says.
  /// `domain`: AF_INET or AF_INET6. `type`: without flags.
  static Result<SocketFile*> open(Host& host, int domain, int type, int protocol);

  Socket& socket() { return *socket_; }
  /// Being closed it has none.
  Socket* socket_if_any() { return socket_; }
  bool nonblocking() const;
  /// What a lock has to cover for bytes to be moved: the shard of a connection that has nothing to do with
  /// anything else, or kWhole.
  uint8_t transfers_under() const;
  /// What one of AF_INET6 has besides; nullptr: it is of AF_INET.
  DualStack* dual_stack() { return dual_stack_; }
  const DualStack* dual_stack() const { return dual_stack_; }
  /// Addresses of IPv6 are the stack's where this is one of AF_INET6.
  bool has_ipv6() const { return dual_stack_ != nullptr && dual_stack_->in_stack(); }
  /// DualStack::lacks_link(), and SO_BINDTODEVICE doesn't say it either.
  bool lacks_link(const RawAddress& raw, const SocketAddress& address) const;
  /// An address of its connection as its program sees it.
  SocketAddress shown(const SocketAddress& address) const;
  /// getsockname(2) and getpeername(2): of AF_INET6 where the socket is.
  Result<SocketAddress> local_name();
  Result<SocketAddress> remote_name();

  Status bind(const SocketAddress& local);
  Status listen(int backlog);
  /// connect(2); a family of unspecified dissolves the connection.
  Status connect(HostLock& lock, const SocketAddress& remote);
  /// The same without waiting: Socket::connect(), or connect_with_data().
  Status begin_connect(const SocketAddress& remote, bool with_data = false);
  /// EISCONN (also for a listener), EALREADY: what connect(2) says before it judges an address; else success.
  Status connect_state();
  struct Accepted {
    SocketFile* file = nullptr;  ///< one reference; nullptr: `kernel` it is
    int kernel = -1;             ///< a connection over the kernel's loopback, CLOEXEC and O_NONBLOCK as asked
  };
  /// `flags`: those of accept4(2).
  Result<Accepted> accept(HostLock& lock, int flags);
  /// One of that shard's connections, without waiting; EAGAIN: accept() has to be asked. The lock covers that
  /// shard, and the common one is held until the file has its number.
  Result<SocketFile*> accept_in_shard(uint8_t shard, int flags);
  /// accept() found no descriptor for it: the next accept() gets it.
  void put_back(SocketFile* accepted);
  Status shutdown(ShutdownHow how);

  /// Sends what `from` has left; the number of bytes that were taken. EPIPE raises SIGPIPE in the calling
  /// thread unless MSG_NOSIGNAL. `stamps`: what is to be told of the message's times (SOF_TIMESTAMPING_TX_*),
  /// in place of what the option says.
  Result<size_t> send(HostLock& lock, UserBytes& from, int flags, std::optional<uint32_t> stamps = {});
  /// sendmsg(2) with MSG_FASTOPEN: connects first where that is still to be done.
  Result<size_t> send_fast_open(HostLock& lock, UserBytes& from, int flags, const SocketAddress& remote);
  /// sendfile(2): up to `bytes` of a kernel's file from `*offset` on, or from its position if nullptr.
  Result<size_t> send_file(HostLock& lock, int in, off64_t* offset, size_t bytes);
  /// splice(2) from a pipe that has `bytes` now; `more`: SPLICE_F_MORE. kPipeBusy: another has taken them.
  Result<size_t> splice_from_pipe(HostLock& lock, int pipe, size_t bytes, bool more);
  /// splice(2) into a pipe, what there is and it has room for, up to `bytes`; 0 at the stream's end. Never
  /// waits for the pipe: kPipeBusy.
  Result<size_t> splice_to_pipe(HostLock& lock, int pipe, size_t bytes);
  static constexpr int kPipeBusy = EXFULL;
  /// What recvmsg(2) has to tell of the bytes.
  struct Received {
    int message_flags = 0;
    /// SO_TIMESTAMP*: when the last of them came.
    std::optional<Instant> arrived;
    /// MSG_ERRQUEUE, without its payload, which the thread's Claims have while this lives.
    std::optional<Report> report;
    Bytes payload{};
    std::optional<DatagramArrival> datagram;

    Received() = default;
    Received(const Received&) = delete;
    Received& operator=(const Received&) = delete;
    /// Under the lock.
    ~Received();
  };
  /// Fills `to`; the number of bytes, 0 at the stream's end.
  Result<size_t> receive(HostLock& lock, UserBytes& to, int flags, Received& received);

  /// The same of a socket of datagrams, each whole. kGoReal: it has become the kernel's meanwhile.
  Result<size_t> send_datagram(HostLock& lock, UserBytes& from, int flags, const DatagramOut& how);
  Result<size_t> receive_datagram(HostLock& lock, UserBytes& to, int flags, Received& received);
  bool has_datagrams() { return socket_->datagrams() != nullptr; }

  bool lingers() const override;
  void linger(HostLock& lock) override;
  void end_turns(const Claims& dead) override;

  Status set_option(int level, int name, Bytes value);
  Result<size_t> get_option(int level, int name, MutableBytes out);

  /// Who is told of its events by signals; nullptr: nobody ever was to be.
  AsyncOwner* async_owner() { return async_owner_; }
  /// The same, made if there is none; nullptr: no memory.
  AsyncOwner* make_async_owner();

  /// Nothing has been done that makes it ours for good: it may still become a kernel socket
  /// (kernel_socket.h).
  bool undecided() const { return undecided_; }
  /// Undecided, and not connected, connecting or broken either: there is nothing to it but its options.
  bool unused() const { return undecided_ && !connected_before_; }
  /// The options set while undecided, in order.
  IntrusiveList<SetOption>& options() { return options_; }
  /// A connect that was started here has not been answered yet, or was not asked about.
  bool connecting() const { return connecting_; }
  /// It has become a kernel socket under all its numbers: who waits on it looks its descriptor up again.
  bool replaced() const { return replaced_; }
  void mark_replaced();

  // For ends outside of the library (escaped_end.h), which the keeper serves; socket_escape.cpp. Nothing here
  // waits.

  /// What one step between the stream and a kernel's descriptor came to: all 0 when there was nothing to
  /// move or no room for it.
  struct Moved {
    size_t bytes = 0;
    int error = 0;         ///< of the socket; EBUSY: a thread is just copying
    int kernel_error = 0;  ///< of the kernel's descriptor, but for EAGAIN
    bool ended = false;    ///< the end of the stream that was read
  };
  Moved send_from_kernel(HostLock& lock, int from);
  /// From `offset` bytes into the stream on; `take`: what was moved is taken off the stream.
  Moved receive_to_kernel(HostLock& lock, int to, size_t offset, bool take);
  /// Takes bytes off the stream that were moved without.
  void take(size_t bytes);
  /// The keeper is between taking bytes and having passed them on.
  bool keeper_moves() const { return sending_.keepers() || receiving_.keepers(); }
  /// The keeper has died while it moved something: what it had reserved stays empty, what it looked at is
  /// unread.
  void end_keepers_turns();
  /// A thread is copying out of the receive buffer.
  bool receiving() const { return receiving_.taken(); }
  /// EAGAIN, ENOBUFS, ECONNABORTED, ...
  Result<SocketFile*> accept_now();

  /// Before a relative writes or ends its direction: what programs outside have written until now goes first,
  /// as the kernel would have it. `always`: also when nothing was found the last many times (each time costs
  /// a turn of the keeper's).
  void flush_ends(HostLock& lock, bool always);
  /// Bytes have come from outside or may soon.
  void expect_from_outside() { idle_flushes_ = 0; }

  void add_end(EscapedEnd& end);
  void remove_end(EscapedEnd& end);
  IntrusiveList<EscapedEnd, SocketFile>& ends() { return ends_; }
  /// Somebody else than `own` waits for some of `events`.
  bool others_wait(const WaitEntry& own, uint32_t events) { return socket_->waiters.awaited(events, own); }
  /// Threads that wait for what is lent look again.
  void lent_is_settled() { passed_on_.notify(ready::kIn); }

  /// Of a listener: what its twin (loopback_twin.h) is watched by; -1: this process has none.
  int kernel_half() const override { return has_twin_ ? twins::of(*this) : -1; }
  uint32_t readiness() override;
  WaitQueue& waiters() override { return socket_->waiters; }

 protected:
  void close() override;

 private:
  friend class ustack::Arena;
  explicit SocketFile(Socket& socket);
  Status set_ipv6_option(int name, Bytes value);
  Status wait_for_connection(HostLock& lock, int when_not_yet);
  void find_ready_list();
  Result<size_t> receive_urgent(HostLock& lock, UserBytes& to, int flags, int* message_flags);
  Result<size_t> receive_report(HostLock& lock, UserBytes& to, Received& received);
  Result<Accepted> accept_from_stack(int flags);
  Result<SocketFile*> file_for_accepted(Socket& socket, int flags);
  Result<Accepted> accept_from_kernel(int flags);
  void left_to_ends() override;
  /// No more than has been moved can be, now: an error is pending, or it is all over.
  bool broken() const { return socket_->failed() || (socket_->readiness() & ready::kHup) != 0; }
  bool lends();
  Status wait_for_return(HostLock& lock);
  void decide();
  void open_twin(int backlog);
  void close_twin();

  /// One of a kind at a time is between reserve and commit (or view and consume): the others wait.
  class Turn {
   public:
    bool taken() const { return by_ != kNobody; }
    /// By the keeper, while it moves something.
    bool keepers() const { return by_ == kKeeper; }
    bool of(const Claims& thread) const { return by_ == reinterpret_cast<uintptr_t>(&thread); }
    /// nullptr: by a thread whose death nobody will notice.
    void take(const Claims* thread) {
      by_ = thread != nullptr ? reinterpret_cast<uintptr_t>(thread) : uintptr_t{kSomebody};
    }
    void take_for_keeper() { by_ = kKeeper; }
    void end() { by_ = kNobody; }

   private:
    enum : uintptr_t { kNobody, kSomebody, kKeeper };
    uintptr_t by_ = kNobody;
  };
  Status take_turn(Blocker& blocker, Turn& turn);
  void end_turn(Turn& turn);
  /// Up to `total` bytes that `fill(room)` puts there without the lock; it says how many, and an errno if
  /// those are less than there was room for.
  struct Filled {
    size_t bytes = 0;
    int error = 0;
    bool ended = false;  ///< there are no more
  };
  static Filled filled_by(long n);
  Result<size_t> refuse_send(HostLock& lock, Error error, int flags);
  Status lend(HostLock& lock, UserBytes& from, int flags, size_t& lent);
  template <typename Fill>
  Result<size_t> send_from(HostLock& lock, size_t total, int flags, std::optional<uint32_t> stamps,
                           Fill fill);

  /// nullptr: being closed.
  Socket* socket_;
  Turn sending_, receiving_;
  /// Threads that wait for a turn to end or for what is lent. All look again at whatever has.
  WaitQueue passed_on_;
  IntrusiveList<EscapedEnd, SocketFile> ends_;
  IntrusiveList<SetOption> options_;
  SocketFile* put_back_ = nullptr;
  AsyncOwner* async_owner_ = nullptr;
  DualStack* dual_stack_ = nullptr;
  /// Once it wraps around, some turns are looked at that need not be.
  uint16_t idle_flushes_ = 0;
  /// Some process has a twin of it.
  bool has_twin_ = false;
  /// Counts accepts: at every second one that asks both, the twin is asked first.
  uint8_t accepts_ = 0;
  bool connecting_ = false;
  bool connected_before_ = false;
  bool undecided_ = true;
  bool replaced_ = false;
};
// A server has many of them.
static_assert(sizeof(SocketFile) <= 160);

/// A reference to a file for the length of a call. Lock: held when made and when ended.
class Held {
 public:
  explicit Held(OpenFile& file) : file_(file), claims_(this_claims()) {
    CommonLock common;
    if (claims_ == nullptr)
      file_.reference();
    else
      claims_->take(file_);
  }
  ~Held() {
    CommonLock common;
    if (claims_ == nullptr)
      file_.release();
    else
      claims_->give_back(file_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  OpenFile& file_;
  Claims* claims_;
};

/// Raises SIGPIPE in the calling thread, as a write to a closed stream does.
void raise_sigpipe();

}  // namespace ustack::shim
