// dies of E0451
use cofferdam_audit::Recorded;

pub fn forge(real: Recorded<u8>) -> Recorded<u8> {
    Recorded { value: 7, ..real }
}
