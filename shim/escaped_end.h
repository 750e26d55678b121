// An end of a socket outside of the library, as the keeper serves it. See escape.h for the whole picture.
#pragma once

#include <cerrno>
#include <cstdint>

#include "io/descriptor.h"
#include "shim/driver.h"
#include "shim/escaped_name.h"
#include "stack/base/intrusive_list.h"
#include "stack/base/result.h"
#include "stack/base/time.h"
#include "stack/socket/wait_queue.h"

namespace ustack::shim {

class SocketFile;

/// What the keeper's epoll set points to.
class Served {
 public:
  /// Its descriptor has become ready, or has been so since it was last asked. May end with the object gone.
  virtual void on_kernel(HostLock& lock) = 0;

 protected:
  ~Served() = default;
};

/// In the arena; holds a reference to its file. Its descriptors are the keeper's, which alone serves, makes
/// and frees it; relatives tell it what has happened (touch, recall) and may read what it says. Lock: the
/// host's.
class EscapedEnd : public Served, public ListHook<>, public ListHook<SocketFile> {
 public:
  EscapedEnd(const EscapedEnd&) = delete;
  EscapedEnd& operator=(const EscapedEnd&) = delete;

  SocketFile& file() { return file_; }
  /// What its descriptors outside find as their peer's name, or a listener as its own; empty at first.
  const UnixAddress& name() const { return name_; }
  /// Something of the file's lies at the outer end and hasn't been taken yet by whoever has that.
  bool lends() const { return lent_ > 0; }
  /// A relative wants what is lent: the keeper takes back what is still there, tells SocketFile's
  /// wait_for_return() and lends nothing for a while, longer each time as nobody outside takes anything.
  void recall();
  /// What was written outside until now has not been looked for since somebody asked
  /// (SocketFile::flush_ends).
  bool flushing() const { return flushing_; }
  void flush() {
    flushing_ = true;
    touch();
  }
  /// There may be something to do: wakes the keeper.
  void touch();
  bool due(Instant now) const { return due_ || now >= retry_at_; }
  Instant retry_at() const { return due_ ? Instant::min() : retry_at_; }

  virtual bool is_listener() const { return false; }
  /// Does what there is to do. False: it has ended and is gone. The lock is dropped meanwhile.
  bool serve(HostLock& lock);
  void on_kernel(HostLock&) override { due_ = true; }

  /// Another descriptor of the end that the programs outside have, CLOEXEC. EBADF: the keeper has none to
  /// duplicate.
  Result<io::Descriptor> another() const;
  /// Its keeper has died, and its descriptors with it: gives the reference back and frees it.
  virtual void abandon() = 0;
  /// Its keeper has died in the middle of serve(), and this is its stand-in. A stream ends, its connection
  /// reset: what was moved is not known.
  virtual void give_up() = 0;
  /// connect(2) of an end. EISCONN, EALREADY, ..., as of a socket that is no listener.
  virtual Status connect_again() { return Error{EISCONN}; }
  /// Why it has ended, once; 0: by no error.
  virtual int take_error() { return 0; }
  /// The process that the end was given to last: once it is dead the end may be unused.
  void set_holder(int32_t pid);

 protected:
  /// Takes over a reference to `file`.
  EscapedEnd(SocketFile& file, io::Descriptor outer);
  ~EscapedEnd();
  /// Nobody but ends outside refers to the file.
  bool alone() const;
  bool holder_is_dead() const;
  /// Bits of ready:: that somebody else waits for.
  bool relatives_wait(uint32_t events) const;
  void retry_in(Duration time);
  /// What work() itself has caused is no reason to look again before retry_in().
  void ignore_own_events() { due_ = false; }
  /// Of several ends that are left alone with the file, the one that is served.
  bool first() const;

  virtual bool work(HostLock& lock) = 0;
  /// Frees it; `reset`: with the last reference the connection is reset.
  virtual void end(HostLock& lock, bool reset) = 0;

  SocketFile& file_;
  UnixAddress name_;
  /// The keeper's copy of the outer end, as long as relatives have the file too: to count and take back what
  /// is lent. It keeps the end from being seen closed, so it goes when the others have gone.
  io::Descriptor outer_;
  /// Bytes or connections that lie at the outer end and that the file has still got.
  uint32_t lent_ = 0;
  bool recalled_ = false;
  bool flushing_ = false;
  /// Nothing is lent before.
  Instant lend_from_{};

  static constexpr Duration kFirstBackOff = 2ms, kLongestBackOff = 1s;
  Duration back_off_ = kFirstBackOff;

 private:
  static bool on_event(WaitEntry& entry, uint32_t events);
  WaitEntry entry_;
  bool due_ = true;
  Instant retry_at_ = kNever;
  int32_t holder_ = 0;
};

}  // namespace ustack::shim
