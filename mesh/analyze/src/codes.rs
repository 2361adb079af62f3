//! Istio's codes, with their names and severities.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It does not work.
    Error,
    /// It probably does not do what was meant.
    Warning,
    /// Worth knowing.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "Error",
            Self::Warning => "Warning",
            Self::Info => "Info",
        })
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal $severity:ident,)*) => {
        /// The kinds of findings.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the names are Istio's")]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            /// `IST0101`
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => concat!("IST", $number),)* }
            }

            /// `ReferencedResourceNotFound`
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    ReferencedResourceNotFound = "0101" Error,
    NamespaceNotInjected = "0102" Info,
    PodMissingProxy = "0103" Warning,
    SchemaValidationError = "0106" Error,
    ConflictingMeshGatewayVirtualServiceHosts = "0109" Error,
    ConflictingSidecarWorkloadSelectors = "0110" Error,
    MultipleSidecarsWithoutWorkloadSelectors = "0111" Error,
    VirtualServiceDestinationPortSelectorRequired = "0112" Error,
    PortNameIsNotUnderNamingConvention = "0118" Info,
    NamespaceMultipleInjectionLabels = "0123" Warning,
    NoMatchingWorkloadsFound = "0127" Warning,
    NoServerCertificateVerificationDestinationLevel = "0128" Warning,
    NoServerCertificateVerificationPortLevel = "0129" Warning,
    VirtualServiceUnreachableRule = "0130" Warning,
    VirtualServiceIneffectiveMatch = "0131" Info,
    VirtualServiceHostNotFoundInGateway = "0132" Warning,
    SchemaWarning = "0133" Warning,
    ServiceEntryAddressesRequired = "0134" Warning,
    IngressRouteRulesNotAffected = "0140" Warning,
    ConflictingGateways = "0145" Error,
    JwtClaimBasedRoutingWithoutRequestAuthN = "0149" Error,
    InvalidGatewayCredential = "0161" Error,
    GatewayPortNotDefinedOnService = "0162" Warning,
    IneffectivePolicy = "0167" Warning,
    DestinationRuleSubsetNotSelectPods = "0173" Error,
    UnknownDestinationRuleHost = "0174" Warning,
}
