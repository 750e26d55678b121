// Connection states (RFC 9293, section 3.3.2).
#pragma once

#include <cstdint>
#include <string_view>

namespace ustack::tcp {

/// In the order of the RFC's diagram. TIME-WAIT is a state of TimeWait objects only: an endpoint that reaches
/// it hands its four-tuple to one and is closed itself, as in Linux.
enum class State : uint8_t {
  closed,
  listen,
  syn_sent,
  syn_received,
  established,
  fin_wait_1,
  fin_wait_2,
  close_wait,
  closing,
  last_ack,
  time_wait,
};
inline constexpr uint8_t kStates = 11;

/// As ss(8) and /proc/net/tcp's readers name them: ESTAB is spelled out.
constexpr std::string_view name_of(State state) {
  switch (state) {
    case State::closed:
      return "CLOSED";
    case State::listen:
      return "LISTEN";
    case State::syn_sent:
      return "SYN-SENT";
    case State::syn_received:
      return "SYN-RECEIVED";
    case State::established:
      return "ESTABLISHED";
    case State::fin_wait_1:
      return "FIN-WAIT-1";
    case State::fin_wait_2:
      return "FIN-WAIT-2";
    case State::close_wait:
      return "CLOSE-WAIT";
    case State::closing:
      return "CLOSING";
    case State::last_ack:
      return "LAST-ACK";
    case State::time_wait:
      return "TIME-WAIT";
  }
  return "?";
}

/// Both sides know each other's sequence numbers (RFC 9293, 3.3.2).
constexpr bool is_synchronized(State state) { return state >= State::established; }
/// Our FIN has not been queued yet: the program may still send.
constexpr bool may_send(State state) { return state == State::established || state == State::close_wait; }
/// The peer's FIN has not come yet: data may still arrive.
constexpr bool may_receive(State state) {
  return state == State::established || state == State::fin_wait_1 || state == State::fin_wait_2;
}
/// The number that Linux's tcp_info and /proc/net/tcp use (TCP_ESTABLISHED = 1, ...).
constexpr uint8_t linux_state(State state) {
  switch (state) {
    case State::established:
      return 1;
    case State::syn_sent:
      return 2;
    case State::syn_received:
      return 3;
    case State::fin_wait_1:
      return 4;
    case State::fin_wait_2:
      return 5;
    case State::time_wait:
      return 6;
    case State::closed:
      return 7;
    case State::close_wait:
      return 8;
    case State::last_ack:
      return 9;
    case State::listen:
      return 10;
    case State::closing:
      return 11;
  }
  return 7;
}

}  // namespace ustack::tcp
